"""Measure what width_needed.py draws: comparisons at more and more neurons until each method reaches each error.

python analysis/measure_width_needed.py --out runs/width_needed     # a stopped one goes on there
python analysis/measure_width_needed.py --m 16 32 --seeds 0 --out runs/quick
"""

import sys

from toymodels.arguments import parse
from toymodels.errors import InputError
from toymodels.experiments.needed import NeededConfig, measure

if __name__ == "__main__":
    try:
        print(f"runs: {measure(parse(NeededConfig, __doc__))}")
    except InputError as error:
        print(f"measure_width_needed: {error}", file=sys.stderr)
        sys.exit(2)

"""How fast does each readoff's error fall with the width, and where does it beat what no hidden layer can?

toymodels sweep sweeps/error_over_d.yaml --out runs/error_over_d
python analysis/error_over_d.py runs/error_over_d --figures docs
"""

from common import from_table

from toymodels.figures.curves import error_over

if __name__ == "__main__":
    from_table(lambda rows, error: error_over(rows, "d", error), __doc__, ("worst_error", "rms_zeros"))

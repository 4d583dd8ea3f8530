"""How do errors grow with the number of active features?

toymodels sweep sweeps/error_over_s.yaml --out runs/error_over_s
python analysis/error_over_s.py runs/error_over_s --figures docs
"""

from common import from_table

from toymodels.figures.curves import error_over

if __name__ == "__main__":
    from_table(lambda rows, error: error_over(rows, "s", error), __doc__, ("worst_error", "rms_zeros"))

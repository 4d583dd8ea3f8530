"""At a given width, how do errors grow with the number of features?

toymodels sweep sweeps/error_over_m.yaml --out runs/error_over_m
python analysis/error_over_m.py runs/error_over_m --figures docs
"""

from common import from_table

from toymodels.figures.curves import error_over

if __name__ == "__main__":
    from_table(lambda rows, error: error_over(rows, "m", error), __doc__, ("worst_error", "rms_zeros"))

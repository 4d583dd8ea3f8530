"""How long must one train before the worst error stops falling?

toymodels sweep sweeps/training_length.yaml --out runs/training_length
python analysis/error_over_steps.py runs/training_length --figures docs
"""

from common import from_table

from toymodels.figures.curves import error_over

if __name__ == "__main__":
    from_table(lambda rows, error: error_over(rows, "steps", error), __doc__)

"""How many neurons does each construction need for an error of ε, and how far below the best of them are trained layers?

python analysis/measure_width_needed.py --out runs/width_needed
python analysis/width_needed.py runs/width_needed --figures docs
"""

from common import from_table

from toymodels.figures.needed import width_needed

if __name__ == "__main__":
    from_table(width_needed, __doc__)

"""How many features in superposition can a layer of d neurons compute the gates of, and where do they crowd the neurons?

python analysis/measure_superposed.py --out runs/superposed
python analysis/superposed.py runs/superposed --figures docs
"""

from common import from_table

from toymodels.figures.superposed import superposed

if __name__ == "__main__":
    from_table(superposed, __doc__)

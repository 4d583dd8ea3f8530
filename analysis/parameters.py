"""What does the error depend on, of all that a sweep varies? For random and Bayesian searches, activations, input laws.

toymodels sweep sweeps/random_search.yaml --out runs/random_search
python analysis/parameters.py runs/random_search --figures docs
"""

from common import from_table

from toymodels.figures.parameters import parameters

if __name__ == "__main__":
    from_table(parameters, __doc__)

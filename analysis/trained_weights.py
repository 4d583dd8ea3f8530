"""What do trained weights look like, beside Gaussian ones: their distribution, their spectrum, the readoff by sign class?

toymodels compare --m 50 --d 100 --out runs/compare
python analysis/trained_weights.py runs/compare --figures docs
"""

from common import from_runs

from toymodels.figures.networks import weights

if __name__ == "__main__":
    from_runs(weights, __doc__)

"""How do the outputs of a trained network spread around 0 and 1, beside those of a frozen random layer?

toymodels compare --m 50 --d 100 --out runs/compare
python analysis/error_histogram.py runs/compare --figures docs
"""

from common import from_runs

from toymodels.figures.networks import histograms

if __name__ == "__main__":
    from_runs(histograms, __doc__)

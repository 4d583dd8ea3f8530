"""Which exponent and which weights of the loss train the network of smallest worst error, and how long must one train?

toymodels sweep sweeps/which_loss.yaml --out runs/which_loss
python analysis/loss_map.py runs/which_loss --figures docs
"""

from common import from_table

from toymodels.figures.maps import loss_map

if __name__ == "__main__":
    from_table(loss_map, __doc__)

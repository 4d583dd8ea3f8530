"""Are the gates as readable from a random first layer as from a trained one, at every m and d?

toymodels sweep sweeps/genericity_map.yaml --out runs/genericity_map
python analysis/genericity_map.py runs/genericity_map --figures docs
"""

from common import from_table

from toymodels.figures.maps import genericity_map

if __name__ == "__main__":
    from_table(genericity_map, __doc__)

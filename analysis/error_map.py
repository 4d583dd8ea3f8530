"""For which m and d does a frozen, a trained layer beat what no hidden layer can, and how do the widths compare with the laws?

toymodels sweep sweeps/genericity_map.yaml --out runs/genericity_map
python analysis/error_map.py runs/genericity_map --figures docs
"""

from common import from_table

from toymodels.figures.maps import error_map

if __name__ == "__main__":
    from_table(error_map, __doc__)

"""First layers: random ones, null models of a trained one, and published constructions, one file each."""

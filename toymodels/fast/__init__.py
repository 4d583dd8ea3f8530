"""The fast wing: faster versions of functions of the core, with the same signatures."""

"""Tasks beyond gates on pairs."""

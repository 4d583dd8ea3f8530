"""A laboratory for computation in superposition."""

"""Weights & Biases sweep files, read and run without a server: definition, search and early termination."""

"""Baselines and floors, a file for each idea."""

"""Experiments: a configuration goes in, a record on disk comes out."""

"""Readoffs: how outputs are read from activations."""

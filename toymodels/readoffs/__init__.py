"""Readoffs: methods to read a task's outputs from activations."""

"""Circuits of many layers."""

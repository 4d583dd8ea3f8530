"""Compute what theory predicts: closed forms, bounds and searches. Needs only NumPy and SciPy; docs/theory.md explains."""

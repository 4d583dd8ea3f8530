"""Closed forms: what theory predicts, as functions that return numbers. Needs only NumPy and SciPy."""

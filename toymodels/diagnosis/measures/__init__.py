"""The measures of `diagnose`, a file for each kind."""

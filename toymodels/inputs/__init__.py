"""Sources of inputs: features that fire together, have unequal probabilities, or are given as a list."""

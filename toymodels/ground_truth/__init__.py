"""Ground truth for interpretability methods: networks whose features and functions are known, and scores of what is found."""

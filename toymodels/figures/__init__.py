"""Draw figures and fits from tables of results. matplotlib is imported only when a figure is drawn."""

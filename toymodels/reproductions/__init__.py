"""Published figures and tables again, a file each, with intervals and verdicts; `toymodels reproduce` runs them."""

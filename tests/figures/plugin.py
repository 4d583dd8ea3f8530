"""A figure of a user's own, which passes the tests of every figure without a line in them."""

from matplotlib.figure import Figure

from toymodels.figures.registry import figure
from toymodels.runs.metrics import error_label


@figure("error_by_seed", columns=("d",), applies=lambda rows: len({row["d"] for row in rows}) > 1)
def error_by_seed(rows, *, metric="worst_error", size=3.0):
    """Draw each seed's error."""
    drawing = Figure()
    axis = drawing.subplots()
    axis.plot([row["seed"] for row in rows], [row[metric] for row in rows], "o", markersize=size)
    axis.set(xlabel="seed", ylabel=error_label(metric))
    return drawing

from toymodels import TASKS
from toymodels.tasks.sets import SymmetricTask


@TASKS("exactly_one_of_three", source="this test")
def exactly_one_of_three(m, sets):
    """Compute whether exactly one of every three features is active."""
    return SymmetricTask(m, (0, 1, 0, 0), sets)

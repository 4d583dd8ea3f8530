from toymodels import TASKS, Task


class Cube(Task):
    def __init__(self, m):
        self.m = self.n_outputs = m
        self.name = "cube"

    def cases(self, x, outputs=slice(None)):
        return (x[:, outputs] != 0).long()

    def targets(self, x, outputs=slice(None)):
        return x[:, outputs] ** 3


@TASKS("cube", source="this test")
def cube(m):
    """Compute x³ of each feature."""
    return Cube(m)

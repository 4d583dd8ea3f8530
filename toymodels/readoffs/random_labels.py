"""Minimax readoffs of random labels: how well does a layer fit labels without structure?"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.core.features import Inputs, dense
from toymodels.core.minimax import Keeper, Loop, fitted_minimax, minimax
from toymodels.core.readoffs import READOFFS, Fitted
from toymodels.core.seeds import derive_seed, seeded
from toymodels.core.tasks import ALL, Task
from toymodels.errors import InputError

_DRAWS = 20
"""Keys are drawn again if two inputs get the same sum: with a million inputs this happens in under 1 % of draws."""


class RandomLabels(Task):
    """Labels as sparse as a task's, without structure: each output's targets in random order over inputs of equal size.

    Among the inputs with k features on, as many have the label 1 as have the target 1, at random. If a readoff fits these
    labels as well as the gate, its small error is due to its free parameters, not to what the layer computes (Zhang et al.
    2017, "Understanding deep learning requires rethinking generalization"). With at most 2 features on, every such label of an
    AND is the AND of another pair, so that nothing can be concluded; from 3 on it can.
    """

    truth = (0, 1)

    def __init__(self, task: Task, inputs: Inputs, seed: int):
        """Draw labels for these inputs only.

        Raises InputError for a task without truth values, inputs that are a sample, or inputs of which two are the same.
        """
        if task.truth is None:
            raise InputError(f"random labels are zeros and ones, but {task.name} has real targets: leave them out")
        if not inputs.enumerated:
            raise InputError("random labels are given to all inputs: take fewer (active) features, so that they can be")
        generator = seeded(seed)
        self.m, self.n_outputs, self.name = task.m, task.n_outputs, f"random labels as sparse as {task.name}"
        # An input is identified by a sum of random whole numbers, one for each active feature, exact in float64.
        indices = inputs.indices.cpu()
        for _ in range(_DRAWS):
            self._keys = torch.randint(2**44, (task.m,), generator=generator).double()
            self._codes, self._rows = nn.functional.pad(self._keys, (0, 1))[indices].sum(1).sort()
            if bool((self._codes.diff() > 0).all()):
                break
        else:
            raise InputError("two of the inputs are the same: random labels are given to each input once")
        labels = torch.zeros(len(indices), task.n_outputs, dtype=torch.uint8)
        size = (indices < task.m).sum(1)
        step = max(1, min(64, 2**25 // len(indices)))  # few outputs at a time, because their order takes int64 numbers
        for start in range(0, task.n_outputs, step):
            outputs = slice(start, min(start + step, task.n_outputs))
            for k in size.unique():
                group = torch.nonzero(size == k).reshape(-1)
                parts = (dense(indices[part], task.m, torch.float64) for part in group.split(2**14))
                target = torch.cat([task.targets(x, outputs).to(torch.uint8) for x in parts])
                order = torch.rand(target.shape, generator=generator).argsort(0)
                labels[group, outputs] = target.gather(0, order)
        self._labels = labels

    def cases(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Int[Tensor, "batch outputs"]:
        """Return the labels. Raises InputError for an input that has none."""
        code = (x != 0).double().cpu() @ self._keys
        position = torch.searchsorted(self._codes, code).clamp(max=len(self._codes) - 1)
        if not bool((self._codes[position] == code).all()):
            raise InputError("an input has no random label: labels were drawn for other inputs")
        return self._labels[self._rows[position], outputs].long().to(x.device)


def _note(s: int | float, inputs: str, tasks: list[Task]) -> str:
    text = (
        "random_labels: minimax readoffs of labels as sparse as the targets, in random order over inputs of equal size; "
        "errors are against these labels."
    )
    if "and" in [task.name for task in tasks] and s == 2 and inputs in ("exactly", "at_most"):
        text += "\n\nWith at most 2 active, a random label of an AND is the AND of another pair."
    return text


@READOFFS(
    "random_labels", order=90, colour="0.6", marker="h", sampled=True, needs="every input", kept=False, note=_note,
    applies=lambda combination: combination.task.truth is not None, source="after Zhang et al. 2017",
)  # fmt: skip
def random_labels(
    layer: nn.Module,
    task: Task,
    every_input: Inputs,
    seed: int,
    progress: Loop = iter,
    processes: int = 1,
    kept: Keeper | None = None,
) -> Fitted:
    """Find the minimax readoff of labels as sparse as the targets, without structure; errors are against these labels."""
    labels = RandomLabels(task, every_input, derive_seed(seed, "labels"))
    return fitted_minimax(minimax(layer, labels, every_input, progress, processes, kept), every_input, labels)

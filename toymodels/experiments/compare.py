"""The genericity experiment: trained, frozen random and no first layer, each with every readoff, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toymodels.errors import InputError, check_different, check_whole
from toymodels.experiments.registry import EXPERIMENTS, Result
from toymodels.experiments.registry import run as run_experiment
from toymodels.experiments.settings import NetworkSettings, nothing_trained
from toymodels.given import conform
from toymodels.registry import deferred, load_plugins
from toymodels.runs.storage import check_writable

if TYPE_CHECKING:
    from toymodels.core.tasks import Task


@dataclass(frozen=True)
class CompareConfig(NetworkSettings):
    """The genericity experiment: are the gates as readable from a random first layer as from a trained one?

    For each task and seed: predict a constant; the affine readoff of the inputs; a frozen random layer with analytic,
    least-squares, L_p-trained and minimax readoffs; a trained layer with its own readoff and with the minimax readoff.
    `layers` adds published constructions and null models.
    """

    task: tuple[str, ...] = ("and", "xor")
    """Tasks, each with its own table and figure: gates on every pair, and_of(k=3) and other gates of k inputs, relu, product, …,
    or your own."""
    readoffs: tuple[str, ...] | None = None
    """Readoffs to compare: constant (1/2, for no layer), analytic (Gaussian layers), least_squares, balanced (by input case), own
    (a construction's), by_class (five numbers for all pairs), trained (by the loss), minimax (the best possible, certified),
    random_labels (minimax of labels without structure), or your own. A layer gets those that apply to it.
    Default: all of these except by_class and random_labels."""
    minimax_pairs: int = 2000
    """Minimax readoffs are solved for all outputs, or for a random sample of this many if there are more."""
    frozen_layer: str = "gaussian"
    """The frozen random first layer, whose errors the genericity ratio divides by those of the trained layer: gaussian, kaiming,
    one of your own, or a construction."""
    layers: tuple[str, ...] | None = None
    """First layers, each with a row for every readoff: identity, trained, gaussian, kaiming, constructions, null models made from
    the trained one (gaussian_like spectrum_matched shuffled shuffled_within), the trained one after a descent of its worst error
    ("descended(steps=50)", not among all), your own, or all of these (of the random ones, frozen_layer and your own). Default:
    identity, frozen_layer and trained."""
    figures: bool = True
    """Draw the figures: histograms of the outputs, one file for each task."""
    json: Path | None = None
    """Also write every number of the table to this file."""

    def __post_init__(self) -> None:
        from toymodels.core.layers import LAYERS
        from toymodels.core.readoffs import READOFFS
        from toymodels.core.tasks import task_name

        conform(self)
        load_plugins(self.plugin)  # before the names below are looked up
        names = [task_name(task) for task in self.task]
        check_different("task", names, task=self.task)
        object.__setattr__(self, "task", tuple(names))
        frozen, _ = LAYERS.named(self.frozen_layer)
        if frozen.role == "none" or frozen.after_training:
            raise InputError(f"frozen_layer {self.frozen_layer} is not drawn and then kept: name a random layer")
        object.__setattr__(self, "frozen_layer", LAYERS.canonical(self.frozen_layer))
        if self.layers is not None:
            names = [name if name == "all" else LAYERS.canonical(name) for name in self.layers]
            check_different("first layer", names, layers=self.layers)
            object.__setattr__(self, "layers", tuple(names))
        if self.readoffs is not None:
            check_different("readoff", [READOFFS.canonical(name) for name in self.readoffs], readoffs=self.readoffs)
            object.__setattr__(self, "readoffs", tuple(READOFFS.canonical(name) for name in self.readoffs))
        super().__post_init__()
        check_whole(least=1, minimax_pairs=self.minimax_pairs)
        if self.json is not None:
            check_writable(self.json)
        self._check_rows()

    def task_names(self) -> tuple[str, ...]:
        """Return the names of all tasks."""
        return self.task

    def first_layers(self) -> tuple[str, ...]:
        """Return the names of all first layers that the run draws, including the initial layer of the trained one."""
        return self.drawn(self.rows())

    def idle(self) -> dict[str, str]:
        """Return the settings that have no effect under the others, each with the reason."""
        from toymodels.core.readoffs import READOFFS

        rows, tasks = self.rows(), self.tasks()
        readoffs = {readoff for name in rows for task in tasks for readoff in self.readoffs_of(name, task)}
        reasons = super().idle() | nothing_trained(rows, readoffs)
        if not any(READOFFS.named(readoff)[0].sampled for readoff in readoffs):
            reasons["minimax_pairs"] = "no readoff here is solved for a sample of outputs"
        elif all(task.n_outputs <= min(self.minimax_pairs, CompareConfig.minimax_pairs) for task in tasks):
            reasons["minimax_pairs"] = "there are no more outputs"
        return reasons

    def rows(self) -> tuple[str, ...]:
        """Return the first layers in the table's order: no layer, frozen ones, the trained one, null models of it.

        "all" leaves out the constructions that cannot be made for these sizes; `left_out` says why.
        """
        from toymodels.core.layers import LAYERS

        names = dict.fromkeys(self.layers or ("identity", self.frozen_layer, "trained"))
        if "all" in names:
            names |= dict.fromkeys((self.frozen_layer, *_meant_by_all()))
            for name in ("all", *self.left_out()):
                del names[name]
        return tuple(sorted(names, key=lambda name: LAYERS.named(name)[0].order))

    def left_out(self) -> dict[str, str]:
        """Return the constructions of "all" that cannot be made for this problem, each with the reason.

        The reason is "" if the construction is not for any of the tasks.
        """
        from toymodels.core.layers import LAYERS

        reasons: dict[str, str] = {}
        for name in _meant_by_all() if "all" in (self.layers or ()) else ():
            if name in (self.layers or ()):
                continue
            member = LAYERS[name]
            fitting = [task for task in self.tasks() if member.fits(task)]
            if not fitting:
                reasons[name] = ""
            try:
                for task in fitting:
                    member.aside(member.check, self.offered(member, task, 0), {})
            except InputError as error:
                reasons[name] = str(error)
        return reasons

    def readoffs_of(self, layer: str, task: Task) -> tuple[str, ...]:
        """Return the readoffs of this first layer in the table of this task, in the table's order."""
        from toymodels.core.readoffs import READOFFS

        combination = self.combination(layer, task)
        if not combination.layer.fits(task):
            return ()
        wanted = self.readoffs
        if wanted is None:
            wanted = tuple(name for name, member in READOFFS.items() if member.default)
        members = sorted(((READOFFS.named(name)[0], name) for name in wanted), key=lambda pair: pair[0].order)
        return tuple(name for member, name in members if member.applies(combination))

    def _check_rows(self) -> None:
        from toymodels.core.layers import LAYERS
        from toymodels.core.minimax import check_minimax
        from toymodels.core.readoffs import READOFFS

        names = self.rows()
        if self.layers is not None:
            self.check_trained(names)
            # A layer that is set but has no row would change nothing but the run's identity.
            if self.frozen_layer != "gaussian" and self.frozen_layer not in names:
                raise InputError(f"frozen_layer {self.frozen_layer} is not among layers: name it there, too")
        roles = {LAYERS.named(name)[0].role for name in names}
        if LAYERS.named(self.layer)[0].role == "none" and "trained" in roles:
            raise InputError("layer identity has nothing to train: its rows are those of the layer identity")
        tasks = self.tasks()
        rows = {readoff for name in names for task in tasks for readoff in self.readoffs_of(name, task)}
        if any(READOFFS.named(readoff)[0].needs == "every input" for readoff in rows):
            check_minimax(self.features())
        if not rows:
            readoffs, of = " or ".join(self.readoffs or ("(default)",)), " or ".join(task.name for task in tasks)
            raise InputError(
                f"no first layer of this comparison ({', '.join(names)}) has a readoff {readoffs} of {of}: name another "
                "readoff or first layer (analytic: a gaussian ReLU layer without bias or embedding; own: a construction; "
                "by_class: no embedding; constant: identity)"
            )


def _meant_by_all() -> list[str]:
    """Return the names that "all" stands for: of random and refined layers those of plugins alone."""
    from toymodels.core.layers import LAYERS

    aside = ("random", "refined")
    return [name for name, member in LAYERS.items() if member.role not in aside or member.plugin is not None]


@EXPERIMENTS(
    "compare", order=0, config=CompareConfig, check=deferred("experiments.build", "check_run"),
    text=deferred("runs.text", "comparison"),
    summary=deferred("experiments.genericity", "summary"),
    summary_names=deferred("experiments.genericity", "summary_names"),
    seconds=deferred("experiments.times", "of_comparison"),
)  # fmt: skip
def compare(config: CompareConfig, folder: Path, report: Callable[..., None]) -> Result:
    """Compare first layers and readoffs: the genericity experiment."""
    from toymodels.experiments.comparison import compare_one, notes
    from toymodels.experiments.genericity import genericity
    from toymodels.parallel.processes import run_jobs

    jobs = [(config, name, seed, folder) for seed in config.seeds for name in config.task]
    rows = [row for rows in run_jobs(compare_one, jobs, config.threads) for row in rows]
    order = [task.name for task in config.tasks()]
    rows.sort(key=lambda row: order.index(row["task"]))
    answers = genericity(rows, config.frozen_layer)
    tidy = [{key: value for key, value in row.items() if key != "evaluation"} for row in rows]
    return Result(tidy, {"genericity": answers, "notes": notes(config)})


def run_compare(config: CompareConfig) -> Path:
    """Do or continue the comparison; return the folder of its record (see `experiments.registry.run`)."""
    return run_experiment("compare", config)

"""Search for the width that a first layer and readoff need for an error, or for the number of features that fit in a width.

One number rises (or falls) by √2 from comparison to comparison until every given error is passed. Each comparison is an ordinary
run of `compare` in a folder of runs: a stopped search can continue, `toymodels results` makes the table, and figures show where
errors are passed.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toymodels.core.settings import FULL_BATCH_LIMIT
from toymodels.errors import InputError, NoEffectError, check_choice, check_different, check_whole
from toymodels.given import conform
from toymodels.registry import load_plugins
from toymodels.runs.metrics import is_metric
from toymodels.runs.settings import check_seeds
from toymodels.runs.storage import check_writable

if TYPE_CHECKING:
    from toymodels.experiments.compare import CompareConfig

MOST_INPUTS = 3_000_000


@dataclass(frozen=True)
class SearchConfig:
    """Find how wide each first layer and readoff must be for an error, over the number of features; or how many features fit.

    The same command again continues a stopped one. `toymodels draw width_needed FOLDER` (over d) and `toymodels draw superposed
    FOLDER` (over m) draw the results.
    """

    out: Path = Path("runs/search")
    """Folder of the runs."""
    over: str = "d"
    """The number that is searched: d (neurons, until errors fall far enough) or m (features, until they rise too far)."""
    methods: tuple[str, ...] = ("trained/minimax", "gaussian/minimax", "rademacher/minimax", "bernoulli(p=0.5)/minimax")
    """First layers with a readoff, LAYER/READOFF, knobs of the layer in brackets."""
    reach: tuple[float, ...] = (0.25, 0.2, 0.1)
    """Errors to pass; if there are none, every number up to the largest is measured."""
    metric: str = "worst_error"
    """The error that is compared with these: a column of the table."""
    m: tuple[int, ...] = (16, 32, 64)
    """Numbers of features, if d is searched."""
    d: tuple[int, ...] = (16, 32, 64, 128)
    """Widths, if m is searched."""
    s: tuple[int, ...] = (2,)
    """Numbers of active features."""
    inputs: str = "at_most"
    """Which inputs occur: at_most or exactly s active."""
    task: str = "and"
    """Gate on pairs."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds, each with pairs and layers of its own."""
    pairs: int = 12
    """Number of pairs, drawn at random, whose largest error is measured; a trained layer learns all pairs."""
    steps: int = 1500
    """L-BFGS steps of a trained layer."""
    embedded: bool = False
    """If m is searched: embed more than d features in d0 = d dimensions (up to d features have an axis each)."""
    frame: str = "random"
    """Directions of embedded features: random or optimised."""
    smallest: int | None = None
    """The smallest number of the search; default 8 neurons, or d/16 features."""
    largest: int | None = None
    """The largest number of the search; default 1,024 neurons, or 40·√d features."""
    most_inputs: int = MOST_INPUTS
    """Problems with more inputs are left out: the worst error of a sample cannot be compared with that of all inputs."""
    eval_inputs: int = 20_000
    """Inputs sampled if there are too many to use all."""
    plugin: tuple[Path, ...] = ()
    """Python files of your own that register first layers and readoffs."""

    def __post_init__(self) -> None:
        from toymodels.core.frames import FRAMES
        from toymodels.core.layers import LAYERS
        from toymodels.core.readoffs import READOFFS
        from toymodels.core.tasks import TASKS, make_task, task_name
        from toymodels.experiments.genericity import metric_names
        from toymodels.experiments.registry import EXPERIMENTS

        conform(self)
        load_plugins(self.plugin)
        check_choice(("d", "m"), over=self.over)
        check_seeds(self.seeds)
        if self.embedded and self.over == "d":
            raise NoEffectError("embedded is for a search over m: name --over m, or leave it out")
        if self.frame != "random" and not self.embedded:
            raise NoEffectError(f"frame {self.frame} is of embedded features: add --embedded, or leave it out")
        idle = "d" if self.over == "d" else "m"
        if getattr(self, idle) != getattr(SearchConfig, idle):
            raise NoEffectError(
                f"{idle} is what a search over {self.over} finds: give smallest and largest, or leave it out"
            )
        check_whole(least=1, pairs=self.pairs, steps=self.steps, most_inputs=self.most_inputs)
        ends = {name: value for name in ("smallest", "largest") if (value := getattr(self, name)) is not None}
        check_whole(least=1, eval_inputs=self.eval_inputs, **ends)
        check_choice(FRAMES, frame=self.frame)
        for name in ("m", "d", "s", "methods"):
            if getattr(self, name):
                check_different("value", getattr(self, name), **{name: [str(value) for value in getattr(self, name)]})
        task = task_name(self.task)
        if not TASKS.named(task)[0].pairwise:
            raise InputError(f"task {task}: a search is for gates on pairs, such as and, xor or 0111")
        if not is_metric(self.metric) or self.metric in ("within_quarter", "seconds"):
            raise InputError(f"metric {self.metric!r}: name an error, such as worst_error or rms_ones")
        if not all(0 < error < math.inf for error in self.reach):
            raise InputError(f"reach = {self.reach}: the errors to pass must be positive numbers")
        for method in self.methods:
            layer, slash, readoff = method.rpartition("/")
            if not slash:
                raise InputError(f"method {method!r}: write it as LAYER/READOFF, such as gaussian/minimax")
            LAYERS.named(layer)
            READOFFS.named(readoff)
        if not self.methods or next(self.searches(), None) is None:
            raise InputError("nothing to measure: name a method, and sizes with fewer inputs than most_inputs")
        check_writable(self.out / "compare")
        if (self.out / "config.json").exists():
            raise InputError(f"{self.out} is the folder of a run: name another one for the runs of the search")
        if self.metric not in metric_names(make_task(task, max(self.m if self.over == "d" else self.d))):
            raise InputError(
                f"metric {self.metric!r}: {task} has no such error; name one such as worst_error or rms_ones"
            )
        for search in {search.method: search for search in self.searches()}.values():
            EXPERIMENTS["compare"].check(search.configuration(search.grid()[0]))

    def searches(self) -> Iterator[Search]:
        """Yield every search that is small enough."""
        fixed = self.m if self.over == "d" else self.d
        for size, s, method, seed in itertools.product(fixed, self.s, self.methods, self.seeds):
            search = Search(self, method, size, s, seed)
            if search.grid():
                yield search


@dataclass(frozen=True)
class Search:
    """The search of one method, size and seed."""

    config: SearchConfig
    method: str
    size: int
    """m if d is searched, d if m is searched."""
    s: int
    seed: int

    def grid(self) -> list[int]:
        """Return the numbers to try: even, rising by √2; a width that the layer cannot have is replaced by the nearest one."""
        from toymodels.core.features import make_features

        config = self.config

        def few_inputs(m: int) -> bool:
            return m >= self.s and make_features(config.inputs, m, self.s).n_inputs <= config.most_inputs

        if config.over == "d":
            if not few_inputs(self.size):
                return []
            low, high = config.smallest or 8, config.largest or 1024
            rising = (2 * round(low / 2 * 2 ** (k / 2)) for k in itertools.count())
            widths = itertools.takewhile(lambda d: d <= high * 1.001, rising)
            return list(dict.fromkeys(self._possible(d) for d in widths))
        low, high = config.smallest or max(4, self.size // 16), config.largest or int(40 * math.sqrt(self.size))
        steps = range(-2 * int(math.log2(max(self.size / 4, 1))), 40)
        numbers = dict.fromkeys(2 * round(self.size * 2 ** (k / 2) / 2) for k in steps)
        return [m for m in numbers if low <= m <= high and few_inputs(m)]

    def _possible(self, d: int) -> int:
        """Return the width nearest to d that the layer can have (a quadratic layer has r² neurons)."""
        from toymodels.core.layers import LAYERS

        member, knobs = LAYERS.named(self.method.rpartition("/")[0])

        def can_be(width: int) -> bool:
            problem = {"m": self.size, "d": width, "s": max(2, self.s), "seed": self.seed, "activation": "relu"}
            try:
                member.aside(member.check, problem, knobs)
            except InputError:
                return False
            return width >= 1

        nearby = sorted(range(d - 2 * math.isqrt(d) - 1, d + 2 * math.isqrt(d) + 2), key=lambda width: abs(width - d))
        return next((width for width in nearby if can_be(width)), d)

    def start(self) -> int:
        """Return the number at which the search begins: about where the largest error was passed in earlier measurements."""
        if self.config.over == "m":
            return self.size
        if not self.method.endswith("/minimax"):
            return 2 * self.size
        return round(6.5 * self.size**0.6) if self.s <= 2 else round(8 * self.size**0.8)

    def configuration(self, number: int) -> CompareConfig:
        """Return the comparison at one number of the grid."""
        from toymodels.core.features import make_features
        from toymodels.core.layers import LAYERS
        from toymodels.core.seeds import derive_seed
        from toymodels.core.tasks import make_task
        from toymodels.experiments.compare import CompareConfig

        config = self.config
        m, d = (self.size, number) if config.over == "d" else (number, self.size)
        call, _, readoff = self.method.rpartition("/")
        member, knobs = LAYERS.named(call)
        learns = member.role == "trained" or readoff == "trained"
        task = make_task(config.task, m)
        # The pairs that a comparison with minimax_pairs draws: the same for all methods of a seed.
        sample: Any = task.sample(config.pairs, derive_seed(self.seed, "pairs"))
        # The same optimiser at every size: above FULL_BATCH_LIMIT "auto" would choose another one.
        every = make_features(config.inputs, m, self.s).n_inputs * task.n_outputs
        embedded = config.embedded and m > d
        return CompareConfig(
            m=m, d=d, s=self.s, inputs=config.inputs, task=(config.task,), seeds=(self.seed,), figures=False, threads=1,
            layers=(member.name,), knobs=knobs, readoffs=(readoff,), minimax_pairs=config.pairs,
            optimiser="kfac" if learns and every > FULL_BATCH_LIMIT else "auto",
            pairs=None if learns else tuple((int(k), int(l)) for k, l in sample.pairs.tolist()),
            steps=config.steps if learns else 3000, eval_inputs=config.eval_inputs, plugin=config.plugin,
            d0=d if embedded else None, frame=config.frame if embedded else None,
        )  # fmt: skip


def run_search(search: Search, position: int = 0) -> None:
    """Do all runs of a search; finished ones are read, not repeated."""
    from toymodels.experiments.compare import run_compare
    from toymodels.parallel import processes
    from toymodels.runs.record import run_name
    from toymodels.runs.table import read_result

    processes.work_alone()
    config = search.config

    def error(number: int) -> float:
        comparison = search.configuration(number)
        folder = config.out / run_name("compare", comparison)
        if not (folder / "results.json").exists():
            run_compare(dataclasses.replace(comparison, out=folder))
        return max(float(row[config.metric]) for row in read_result(folder)["rows"])

    grid = search.grid()
    if not config.reach:
        for number in grid:
            error(number)
    elif config.over == "d":
        bracket(error, grid, config.reach, search.start())
    else:  # errors rise with m, and so fall along −m
        falling = [-m for m in reversed(grid)]
        bracket(lambda number: error(-number), falling, config.reach, -min(search.start(), grid[-1]))


def bracket(error: Callable[[int], float], grid: Sequence[int], levels: Sequence[float], start: int) -> None:
    """Measure every number of the grid from the last with an error above all levels to the first at or below all of them.

    Assumes that the error falls along the grid; the search begins at the first number from `start` on.
    """
    i = next((i for i, number in enumerate(grid) if number >= start), len(grid) - 1)
    while i and error(grid[i]) <= max(levels):
        i -= 1
    while i < len(grid) and error(grid[i]) > min(levels):
        i += 1


def measure(config: SearchConfig) -> str:
    """Do or continue all searches on all cores; return a sentence with the folder of the runs."""
    from toymodels.parallel import processes

    processes.run_jobs(run_search, [(search,) for search in config.searches()], label="searches")
    return f"runs: {config.out}"

"""Plant faults in the code, one at a time, and list those that no test catches: `make mutants`, docs/mutants.md.

The faults are made by mutmut's operators (`a + b` → `a - b`, `f(x, y)` → `f(x)`, …) and, where such small ones say nothing, taken
from tests/planted.yaml. Mutmut's own runner is not used, because it leaves out decorated functions, which most of the core are.

A fault is never written to disk: in a process that is forked for it, with torch imported already, Python gets the changed text in
place of the file's. There the tests run that reach the changed statement, the quickest first, up to `--budget` seconds of them.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import importlib.machinery
import inspect
import itertools
import json
import math
import os
import random
import resource
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import libcst as cst
import pytest
import yaml
from _pytest.main import pytest_runtestloop
from libcst.metadata import MetadataWrapper
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "mutants.md"
PLANTED = ROOT / "tests" / "planted.yaml"

TESTS = {  # of modules whose tests are not, or not all, in the file of the same name
    "core/evaluation": ["core/test_evaluation", "fast/test_evaluation"],
    "core/least_squares": ["core/test_least_squares", "fast/test_least_squares"],
    "core/network": ["core/test_evaluation", "core/test_losses"],
    "core/readoffs": ["readoffs/test_simple"],
    "core/seeds": ["core/test_training", "experiments/test_train"],
    "core/settings": ["core/test_training", "runs/test_config"],
    "fast/error_sums": ["fast/test_error_sums", "fast/test_evaluation", "core/test_evaluation"],
    "fast/evaluation": ["fast/test_evaluation", "core/test_evaluation"],
    "fast/gram": ["fast/test_gradients"],
    "fast/least_squares": ["fast/test_least_squares", "core/test_least_squares"],
    "fast/pair_lp": ["fast/test_gradients"],
    "fast/pairs": ["fast/test_pairs", "fast/test_gradients"],
    "experiments/build": ["experiments/test_train"],
    "layers/bernoulli": ["layers/test_iid", "layers/test_members"],
    "readoffs/analytic": ["readoffs/test_analytic", "readoffs/test_simple"],
    "readoffs/by_class": ["readoffs/test_by_class", "readoffs/test_simple"],
    "readoffs/random_labels": ["readoffs/test_random_labels", "readoffs/test_simple"],
    "runs/metrics": ["runs/test_table", "experiments/test_train"],
}


def modules() -> list[str]:
    """List the modules that `make mutants` covers."""
    files = [path for part in ("core", "fast", "readoffs") for path in sorted((ROOT / "toymodels" / part).glob("*.py"))]
    names = [f"{path.parent.name}/{path.stem}" for path in files if path.stem != "__init__"]
    return [*names, "theory/statistics", "figures/fits"]


@dataclass
class Fault:
    """A change of one module's text."""

    text: str
    """The module with the fault."""
    lines: Sequence[int]
    """Lines of the original that the changed statement covers."""
    before: str
    after: str
    tests: list[str] = field(default_factory=list)
    """The tests that reach it, the quickest first, as many as the budget allows."""
    on_import: bool = False
    """Whether it acts when the module is imported, or before the tests begin."""
    caught: bool = False


GUARDS = ("None", "strict=", "device=", "repr=")
"""Changes that put one of these in or out say nothing: a crash; a check of lengths; the tests' only device; what is printed."""


class Collector(cst.CSTVisitor):
    """Collects mutmut's changes of all that is computed: not of annotations, messages of errors, or facts in decorators."""

    METADATA_DEPENDENCIES = (cst.metadata.PositionProvider, cst.metadata.WhitespaceInclusivePositionProvider)

    def __init__(self, source: str) -> None:
        super().__init__()
        self.faults: list[Fault] = []
        self._source = source
        self._starts = list(itertools.accumulate(map(len, source.splitlines(keepends=True)), initial=0))
        self._statements: list[range] = []
        self._within: list[type] = [cst.Module]

    def on_visit(self, node: cst.CSTNode) -> bool:
        """Collect the changes of one node."""
        if isinstance(node, cst.BaseSmallStatement | cst.BaseCompoundStatement):
            position = self.get_metadata(cst.metadata.PositionProvider, node)
            body = getattr(getattr(node, "body", None), "body", ())  # of a compound statement only the head is one step
            last = (
                self.get_metadata(cst.metadata.PositionProvider, body[0]).start.line - 1 if body else position.end.line
            )
            self._statements.append(range(position.start.line, max(last, position.start.line) + 1))
        if isinstance(node, cst.Decorator | cst.Lambda):
            self._within.append(type(node))
        if isinstance(node, cst.Annotation | cst.Raise | cst.Assert) or (
            isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value in ("len", "isinstance")
        ):
            return False
        if isinstance(node, cst.Arg) and node.keyword and f"{node.keyword.value}=" in GUARDS:
            return False
        if self._statements and self._within[-1] is not cst.Decorator:
            for kind, operator in mutation_operators:
                if isinstance(node, kind):
                    for changed in operator(node):
                        self._add(node, changed)
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        """Leave one node."""
        if isinstance(node, cst.BaseSmallStatement | cst.BaseCompoundStatement):
            self._statements.pop()
        if isinstance(node, cst.Decorator | cst.Lambda):
            self._within.pop()

    def _add(self, node: cst.CSTNode, changed: cst.CSTNode) -> None:
        place = self.get_metadata(cst.metadata.WhitespaceInclusivePositionProvider, node)
        start, end = (self._starts[at.line - 1] + at.column for at in (place.start, place.end))
        before, after = self._source[start:end], cst.Module([]).code_for_node(changed)
        text = self._source[:start] + after + self._source[end:]
        if before != after and all(before.count(guard) == after.count(guard) for guard in GUARDS):
            self.faults.append(Fault(text, self._statements[-1], *shown(self._source, text)))


def mutmuts(source: str) -> list[Fault]:
    """Make every fault that mutmut's operators plant in a module."""
    collector = Collector(source)
    MetadataWrapper(cst.parse_module(source)).visit(collector)
    return [fault for fault in collector.faults if parses(fault.text)]


def parses(text: str) -> bool:
    """Whether it is Python."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def planted(name: str, source: str) -> Iterator[Fault]:
    """Make the faults of tests/planted.yaml in a module. Raises ValueError for one whose place is gone."""
    for before, after in yaml.safe_load(PLANTED.read_text()).get(name, []):
        if source.count(before) != 1:
            raise ValueError(
                f"{PLANTED.name}: {name} has {source.count(before)} times {before!r}: it must be there once"
            )
        first = source[: source.index(before)].count("\n") + 1
        lines = range(first, first + before.count("\n") + 1)
        yield Fault(source.replace(before, after), lines, before, after)


def shown(source: str, text: str) -> tuple[str, str]:
    """Return the lines that differ, before and after."""
    old, new = source.splitlines(), text.splitlines()
    start = next(i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b)
    end = next(i for i, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b)
    end = min(end, len(old) - start - 1, len(new) - start - 1)
    parts = (" ".join(line.strip() for line in lines[start : len(lines) - end]) for lines in (old, new))
    return next(parts), next(parts)


CRASHED, ON_IMPORT = 99, 77
CASES = 6
"""Cases of a test that are run at most: a fault that needs another one counts as not caught."""


def in_fork(work: Callable[[], int], cpu: float, wall: float) -> int:
    """Run `work` in a forked process without output; return what it returns, or a negative number if it was stopped."""
    errors = os.dup(2)
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time() + cpu), resource.RLIM_INFINITY))
        if "MUTANTS_SHOW" not in os.environ:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
        code = CRASHED
        try:
            code = int(work())
        except BaseException:
            os.write(errors, traceback.format_exc().encode())
        finally:
            os._exit(code)
    os.close(errors)
    end = time.monotonic() + wall
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            if code == CRASHED:
                raise RuntimeError("the forked process could not do its work")
            return code
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def functions(code: CodeType) -> Iterator[CodeType]:
    """Yield the code of what is defined inside of some code, at any depth, in order."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from functions(constant)


def definitions(code: CodeType) -> tuple[object, ...]:
    """Return what a module or class does when it is imported, apart from the bodies of functions."""
    inner = (definitions(c) if not c.co_flags & inspect.CO_OPTIMIZED else c.co_name for c in functions(code))
    return code.co_code, code.co_names, tuple(c for c in code.co_consts if not isinstance(c, CodeType)), *inner


def replace_functions(path: Path, source: str, text: str) -> bool:
    """Give the functions of an imported module the bodies that they have in `text`; False if that is not all that changes."""
    # A module of members may be imported by the first test that asks for one, in another process.
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    loader = module.__spec__.loader
    old, new = (loader.source_to_code(form.encode(), str(path)) for form in (source, text))
    if definitions(old) != definitions(new):
        return False
    bodies = dict(zip(functions(old), functions(new), strict=True))
    for function in gc.get_objects():
        if type(function) is FunctionType and function.__code__.co_filename == str(path):
            function.__code__ = bodies[function.__code__]
    return True


def substitute(path: Path, text: str) -> None:
    """Let Python read `text` in place of a file that is not yet imported."""
    sys.dont_write_bytecode = True
    read, compiled = importlib.machinery.SourceFileLoader.get_data, path.parent / "__pycache__" / f"{path.stem}."

    def get_data(self: importlib.machinery.SourceFileLoader, name: str) -> bytes:
        if name.startswith(str(compiled)):
            raise OSError("compiled from the file without the fault")
        return text.encode() if Path(name) == path else read(self, name)

    importlib.machinery.SourceFileLoader.get_data = get_data  # type: ignore[method-assign, assignment]


def function_of(test: str) -> str:
    """Return a test without its case."""
    return test.split("[")[0]


def some_cases(tests: Sequence[str]) -> list[str]:
    """Choose at most CASES cases of every test, from the first to the last."""
    groups = [list(cases) for _, cases in itertools.groupby(tests, function_of)]
    return [cases[i * (len(cases) - 1) // (CASES - 1)] if len(cases) > CASES else cases[i]
            for cases in groups for i in range(min(CASES, len(cases)))]  # fmt: skip


def affordable(seconds: dict[str, float], budget: float) -> list[str]:
    """Choose tests for so many seconds: the quickest case of every test first, then the second quickest of each, and so on."""
    cases = itertools.groupby(sorted(seconds, key=lambda test: (function_of(test), seconds[test])), function_of)
    places = {test: (place, seconds[test]) for _, tests in cases for place, test in enumerate(tests)}
    chosen, left = [], budget
    for test in sorted(places, key=places.__getitem__):
        if seconds[test] <= left or not chosen:
            chosen.append(test)
            left -= seconds[test]
    return chosen


@dataclass
class Planter:
    """A pytest plugin that runs the tests once without a fault, and then for each fault those that reach it."""

    path: Path
    source: str
    faults: list[Fault]
    budget: float
    out: Path
    fresh: bool = False
    """Whether this process was made for a single fault, and reads the module with it."""
    coverage: coverage.Coverage | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def pytest_configure(self) -> None:
        """Record the lines that are passed before any test."""
        if not self.fresh:
            self.coverage = coverage.Coverage(data_file=None, include=[str(self.path)])
            self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Record the lines and the time of one test."""
        started = time.process_time()
        if self.coverage:
            self.coverage.switch_context(item.nodeid)
        result = yield
        self.seconds[item.nodeid] = time.process_time() - started
        return result  # type: ignore[return-value]

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the tests, in a forked process for each fault."""
        every = {item.nodeid: item for item in session.items}

        def run(names: list[str]) -> int:
            session.items = [every[name] for name in names]
            try:
                pytest_runtestloop(session)
            except session.Failed:
                return 1
            return int(session.testsfailed > 0)

        def measure() -> int:
            code = run(some_cases(list(every)))
            assert self.coverage
            self.coverage.stop()
            lines = self.coverage.get_data().contexts_by_lineno(str(self.path))
            others = [name for name in sys.modules if name.split(".")[0] not in ("toymodels", "tests", "__main__")]
            self.out.write_text(json.dumps([self.seconds, lines, others]))
            return code

        if self.fresh:
            session.testsfailed = run([name for name in self.faults[0].tests if name in every])
            return True
        if in_fork(measure, 600, 1800):
            raise RuntimeError(f"the tests of {self.path.name} must pass before a fault is planted")
        assert self.coverage
        self.coverage.stop()
        self.coverage = None
        seconds, lines, _ = json.loads(self.out.read_text())
        for fault in self.faults:
            reach = set().union(*(lines.get(str(line), []) for line in fault.lines))
            fault.on_import = "" in reach or not reach
            fault.tests = affordable(
                {test: seconds[test] for test in (seconds if fault.on_import else reach)}, self.budget
            )

            def plant(fault: Fault = fault) -> int:
                return run(fault.tests) if replace_functions(self.path, self.source, fault.text) else ON_IMPORT

            code = in_fork(plant, 10 + 3 * self.budget, 300)
            fault.on_import |= code == ON_IMPORT
            fault.caught = code not in (0, ON_IMPORT)
        self.out.write_text(
            json.dumps([*json.loads(self.out.read_text()), [vars(f) for f in self.faults]], default=list)
        )
        return True


def run_pytest(files: list[str], plugin: Planter) -> int:
    """Run some tests in this process, up to the first that fails."""
    ignored = "ignore::pytest.PytestAssertRewriteWarning"  # of plugins imported before a fork
    return pytest.main(["-x", "-W", ignored, "-p", "no:cacheprovider", "--tb=no", *files], plugins=[plugin])


def try_module(name: str, most: int, seed: int, budget: float, only_planted: bool) -> tuple[list[Fault], int]:
    """Try the faults of one module, at most so many of mutmut's; return those tried, and how many there are."""
    path, out = ROOT / "toymodels" / f"{name}.py", ROOT / "build" / f"mutants-{os.getpid()}.json"
    out.parent.mkdir(exist_ok=True)
    source = path.read_text()
    folder, stem = name.split("/")
    files = [f"tests/{test}.py" for test in TESTS.get(name, [f"{folder}/test_{stem}"])]
    everything = [] if only_planted else mutmuts(source)
    chosen = everything if len(everything) <= most else random.Random(seed).sample(everything, most)
    faults = [*planted(name, source), *sorted(chosen, key=lambda fault: fault.lines[0])]
    code = in_fork(lambda: run_pytest(files, Planter(path, source, faults, budget, out)), 10**6, 10**6)
    if code:
        raise RuntimeError(f"pytest on {' '.join(files)} ended with {code}: without a fault all must pass")
    *_, others, tried = json.loads(out.read_text())
    with warnings.catch_warnings(), contextlib.suppress(Exception):
        warnings.simplefilter("ignore")
        for other in others:  # what the tests need is imported once, before the forks
            importlib.import_module(other)
    faults = [Fault(**fault) for fault in tried]
    for fault in faults:
        if fault.on_import and not fault.caught:

            def work(fault: Fault = fault) -> int:
                substitute(path, fault.text)
                return run_pytest(files, Planter(path, source, [fault], budget, out, fresh=True))

            fault.caught = in_fork(work, 20 + 3 * budget, 300) != 0
    return faults, len(everything)


def main() -> None:
    """Try the faults of the named modules, or of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="such as core/losses; all if none is named")
    parser.add_argument("--most", type=int, default=10**9, help="faults per module; more are sampled")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--budget", type=float, default=1.0, help="seconds of tests per fault")
    parser.add_argument("--planted", action="store_true", help="only the faults of tests/planted.yaml")
    options = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before NumPy is imported: a fork keeps no threads
        os.environ[variable] = "1"
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for heavy in ("torch", "scipy.optimize", "scipy.stats", "pydantic", "beartype", "matplotlib.figure", "highspy"):
        importlib.import_module(heavy)
    page, unexplained = PAGE.read_text() if PAGE.exists() else "", 0
    for name in options.modules or (yaml.safe_load(PLANTED.read_text()) if options.planted else modules()):
        started = time.monotonic()
        faults, there = try_module(name, options.most, options.seed, options.budget, options.planted)
        left = [fault for fault in faults if not fault.caught]
        equal = [fault for fault in left if f"`{fault.before}` → `{fault.after}`" in page]
        new = [fault for fault in left if fault not in equal]
        unexplained += len(new)
        print(
            f"{name}: {len(faults)} tried (of {there}), {len(faults) - len(left)} caught, {len(equal)} explained in "
            f"docs/mutants.md, {len(new)} not; {time.monotonic() - started:.0f} s",
            flush=True,
        )
        for fault in new:
            print(f"  {name}.py:{fault.lines[0]}: `{fault.before}` → `{fault.after}`", flush=True)
    sys.exit(unexplained > 0)


if __name__ == "__main__":
    main()

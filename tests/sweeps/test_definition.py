import random as stdlib_random
from pathlib import Path

import pytest

from tests.sweeps.toy import read_sweep
from toymodels.errors import InputError
from toymodels.sweeps.definition import Hyperband, Metric, Parameter, Sweep

FULL = """\
program: run.py
name: widths
description: is 1/√d there?
project: lab
entity: us
method: bayes
metric: {name: worst_error, goal: minimize, target: 0.25}
run_cap: 12
command: ["${env}", python, -m, toymodels, train, --m, 50, "${args}"]
early_terminate: {type: hyperband, max_iter: 27, s: 2, eta: 2, strict: false}
parameters:
  task: {values: [and, xor]}
  d:
    min: 20
    max: 200
  optimizer:
    parameters:
      lr: {distribution: log_uniform_values, min: 1.0e-4, max: .1}
      beta: {value: 0.9}
  weight: {values: [1, 2], probabilities: [0.25, 0.75]}
"""


def read(folder: Path, text: str, known=None) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_sweep(path, known)


def test_a_whole_sweep(tmp_path):
    sweep = read(tmp_path, FULL)
    assert sweep == Sweep(
        path=tmp_path / "sweep.yaml",
        method="bayes",
        parameters=(
            Parameter(("d",), "int_uniform", numbers={"min": 20, "max": 200}, line=13),
            Parameter(("optimizer", "beta"), "constant", (0.9,), line=19),
            Parameter(("optimizer", "lr"), "log_uniform_values", numbers={"min": 1e-4, "max": 0.1}, line=18),
            Parameter(("task",), "categorical", ("and", "xor"), line=12),
            Parameter(("weight",), "categorical_w_probabilities", (1, 2), (0.25, 0.75), line=20),
        ),
        metric=Metric("worst_error", "minimize", 0.25, 7),
        early_terminate=Hyperband(None, 27, 2, 2, False),
        run_cap=12,
        command=("${env}", "python", "-m", "toymodels", "train", "--m", "50", "${args}"),
        name="widths",
        description="is 1/√d there?",
        program="run.py",
        project="lab",
        entity="us",
    )
    assert [parameter.name for parameter in sweep.parameters][1:3] == ["optimizer.beta", "optimizer.lr"]


def test_defaults_and_keys_without_a_local_meaning(tmp_path):
    sweep = read(
        tmp_path,
        "kind: sweep\napiVersion: '1'\ncontroller: {type: local}\nmethod: grid\nmetric: {name: l, impute_while_running: false}\n"
        "early_terminate: {type: hyperband, min_iter: 3}\nparameters: {a: {value: 1}}\n",
    )
    assert sweep.metric == Metric("l", "minimize", None, 5)
    assert sweep.early_terminate == Hyperband(3, None, None, 3, True)
    assert (sweep.run_cap, sweep.command, sweep.name) == (None, None, None)


def test_anchors_and_merge_keys_are_read(tmp_path):
    text = "method: grid\nparameters:\n  a: &a {values: [1, 2]}\n  b: {<<: *a, values: [3]}\n  c: *a\n"
    assert [p.values for p in read(tmp_path, text).parameters] == [(1, 2), (3,), (1, 2)]


def test_text_of_windows(tmp_path):
    text = b"\xef\xbb\xbfmethod: grid\r\nparameters:\r\n  a:\r\n    values: [1]\r\n"
    assert read(tmp_path, text).parameters == (Parameter(("a",), "categorical", (1,), line=3),)


GRID = "method: grid\nparameters:\n"
RANDOM = "method: random\nparameters:\n"
REFUSALS = [
    # the file
    ("", 1, "the file is empty"),
    ("# only a comment\n", 1, "the file is empty"),
    ("- method: grid\n", 1, "the file is a list: it must be a mapping"),
    ("grid\n", 1, "the file is the single value 'grid'"),
    ("method: grid\nparameters:\n\ta: {value: 1}\n", 3, "never with tabs"),
    ("method: grid\nname: [unclosed\n", 3, "not valid YAML"),
    ("method: grid\n---\nmethod: grid\n", 2, "not valid YAML, but found another document"),
    ("method: grid\nname: \x00\n", 2, "the character number 0 is not allowed"),
    (b"method: grid\nname: caf\xe9\n", 2, "not UTF-8"),
    ("method: grid\nname: !!python/object:os.system {}\n", 2, "python/object:os.system"),
    ("method: grid\nparameters: &p\n  a: {parameters: *p}\n", 2, "an anchor (&) with its own alias (*) inside"),
    ("[" * 3000, 1, "nested too deeply"),
    # what YAML misreads
    (GRID + "  a: {value: 1}\n  b: {value: 1}\n  a: {value: 2}\n", 5, "there are two keys 'a'"),
    (GRID + "  a: {value: {k: 1, k: 2}}\n", 3, "there are two keys 'k'"),
    (GRID + "  a.b: {value: 1}\n  a: {parameters: {b: {value: 1}}}\n", 3, "a.b is given twice, nested"),
    (GRID + "  1: {value: 1}\n", 3, "the key 1 is not text"),
    (GRID + "  on: {value: 1}\n", 3, "the key on is not text"),
    (GRID + "  ? [a, b]\n  : {value: 1}\n", 3, "the key of several parts is not text"),
    (RANDOM + "  a:\n    min: 1.5e8\n    max: 2.0e+8\n", 4, "read 1.5e8 as text: write 150000000.0)"),
    (RANDOM + "  a: {min: 1E-20, max: 1.0}\n", 3, "read 1E-20 as text: write 1.000000e-20)"),
    (GRID + "  a: {values: [010]}\n", 3, "reads 010 as 8 (octal or base 60): write 8"),
    (GRID + "  a: {values: ['1', 1:30]}\n", 3, "reads 1:30 as 90"),
    (GRID + "  a: {value: 2024-01-01}\n", 3, "reads '2024-01-01' as a timestamp"),
    (GRID + "  a: {values: [.inf]}\n", 3, ".inf is not a finite double"),
    (GRID + "  a: {values: [.nan]}\n", 3, ".nan is not a finite double"),
    (GRID + "  a: {values: [1, !!int one]}\n", 3, "'one' is not a valid int"),
    (GRID + "  a: {value: !!bool maybe}\n", 3, "'maybe' is not a valid bool"),
    (GRID + "  a: {value: 0x_}\n", 3, "'0x_' is not a valid int"),
    (GRID + "  a: {value: 2024-13-45}\n", 3, "reads '2024-13-45' as a timestamp"),
    (GRID + "  a: {values: !!int [1]}\n", 3, "YAML reads this as a int"),
    (GRID + "  a: {values: !!set {1}}\n", 3, "YAML reads this as a set"),
    (GRID + "  a: {min: 1, max: 1" + "0" * 309 + "}\n", 3, "is not a finite double"),
    (GRID + "  a: {value: !!int }\n", 3, "'' is not a valid int"),
    # the sweep
    ("parameters: {a: {value: 1}}\n", 1, "method is missing"),
    ("name: x\nmethod: grid\n", 1, "parameters is missing"),
    (
        "method: grid\nparameter: {a: {value: 1}}\n",
        2,
        "unknown key 'parameter' in the sweep: did you mean 'parameters'?",
    ),
    (
        "method: rnadom\nparameters: {a: {value: 1}}\n",
        1,
        "unknown method 'rnadom': did you mean 'random'? choose one of",
    ),
    ("method: [grid]\nparameters: {a: {value: 1}}\n", 1, "method is ['grid']: it must be one of grid, random, bayes"),
    ("method: custom\nscheduler: {engine: ax}\n", 2, "scheduler is for W&B Launch or schedulers"),
    ("method: grid\nrun_cap: 0\nparameters: {a: {value: 1}}\n", 2, "run_cap is 0: it must be a whole number from 1 up"),
    ("method: grid\nrun_cap: true\nparameters: {a: {value: 1}}\n", 2, "run_cap is True"),
    ("method: grid\nrun_cap: 2.5\nparameters: {a: {value: 1}}\n", 2, "run_cap is 2.5"),
    ("method: grid\nname: 3\nparameters: {a: {value: 1}}\n", 2, "name is 3: it must be text"),
    ("method: grid\ncommand: python x.py\nparameters: {a: {value: 1}}\n", 2, "it must be a list of words"),
    # metric and early termination
    ("method: bayes\nparameters: {a: {values: [1]}}\n", 1, "method needs a metric to go by"),
    ("method: bayes\nmetric: {name: l}\nparameters: {a: {value: 1}}\n", 3, "every parameter is constant"),
    ("method: grid\nmetric: l\nparameters: {a: {value: 1}}\n", 2, "metric is the single value 'l'"),
    ("method: grid\nmetric: [l]\nparameters: {a: {value: 1}}\n", 2, "metric is a list"),
    ("method: grid\nmetric: {goal: minimize}\nparameters: {a: {value: 1}}\n", 2, "metric has no name"),
    ("method: grid\nmetric: {name: 3}\nparameters: {a: {value: 1}}\n", 2, "name is 3"),
    (
        "method: grid\nmetric: {name: l, goal: minimise}\nparameters: {a: {value: 1}}\n",
        2,
        "unknown goal 'minimise': did you mean 'minimize'?",
    ),
    ("method: grid\nmetric: {name: l, gaol: minimize}\nparameters: {a: {value: 1}}\n", 2, "did you mean 'goal'?"),
    (
        "method: grid\nmetric: {name: l, target: low}\nparameters: {a: {value: 1}}\n",
        2,
        "target is 'low': it must be a number",
    ),
    ("method: grid\nmetric: {name: l, impute: best}\nparameters: {a: {value: 1}}\n", 2, "impute must be worst"),
    (
        "method: grid\nmetric: {name: l, impute_while_running: latest}\nparameters: {a: {value: 1}}\n",
        2,
        "impute_while_running must be false",
    ),
    (
        "method: grid\nearly_terminate: {type: hyperband, min_iter: 1}\nparameters: {a: {value: 1}}\n",
        2,
        "needs a metric",
    ),
    # one parameter
    ("method: grid\nparameters: {}\n", 2, "parameters is empty"),
    ("method: grid\nparameters: [a]\n", 2, "parameters is a list"),
    ("method: grid\nparameters:\n", 2, "parameters is the single value ''"),
    (GRID + "  a: 3\n", 3, "a is not a mapping: write value: …"),
    (GRID + "  a: [1, 2]\n", 3, "a is not a mapping"),
    (GRID + "  a b: {value: 1}\n", 3, "the parameter name 'a b' is not one"),
    (GRID + "  a:\n    values: []\n", 4, "a: values is empty"),
    (GRID + "  a:\n    values:\n", 4, "values is None: it must be a list"),
    (GRID + "  a:\n    values: 3\n", 4, "values is 3: it must be a list"),
    (GRID + "  a:\n    valeus: [1]\n", 4, "unknown key 'valeus' in a: did you mean 'values'?"),
    (GRID + "  a:\n    parameters: {b: {value: 1}}\n    value: 1\n", 5, "unknown key 'value' in a, which holds nested"),
    (GRID + "  a: {parameters: {}}\n", 3, "parameters is empty"),
    (GRID + "  a: {parameters: [b]}\n", 3, "parameters of a is a list"),
    (GRID + "  a:\n    parameters:\n      b: {valu: 1}\n", 5, "unknown key 'valu' in a.b"),
    (GRID + "  a: {}\n", 3, "a does not say what to try"),
    (RANDOM + "  a: {min: 1}\n", 3, "a does not say what to try"),
    (RANDOM + "  a: {min: 1, max: 5, q: 2}\n", 3, "a: with q and min and max, distribution must be given"),
    (RANDOM + "  a:\n    value: 1\n    values: [1]\n", 5, "a: constant takes no values: it takes value"),
    (
        RANDOM + "  a: {distribution: unifrom, min: 1, max: 2}\n",
        3,
        "unknown distribution 'unifrom': did you mean 'uniform'?",
    ),
    (RANDOM + "  a: {distribution: uniform, min: 1}\n", 3, "a: uniform needs max"),
    (RANDOM + "  a: {distribution: constant}\n", 3, "a: constant needs value"),
    (RANDOM + "  a: {distribution: categorical_w_probabilities, values: [1]}\n", 3, "needs probabilities"),
    (RANDOM + "  a:\n    distribution: normal\n    min: 1\n", 5, "a: normal takes no min: it takes mu, sigma"),
    (RANDOM + "  a: {distribution: int_uniform, min: 1.0, max: 2}\n", 3, "min is 1.0: it must be a whole number"),
    (RANDOM + "  a: {min: true, max: 2}\n", 3, "min is True: it must be a number"),
    (RANDOM + "  a: {min: '1', max: 2}\n", 3, "min is '1': it must be a number"),
    (RANDOM + "  a: {min: 2, max: 2}\n", 3, "a: min 2 is not less than max 2"),
    (RANDOM + "  a: {min: 2.5, max: 2}\n", 3, "a: min 2.5 is not less than max 2"),
    (RANDOM + "  a: {distribution: log_uniform_values, min: 0, max: 1}\n", 3, "a: min 0 has no logarithm"),
    (RANDOM + "  a: {distribution: q_log_uniform_values, min: -1, max: 1}\n", 3, "a: min -1 has no logarithm"),
    (RANDOM + "  a: {distribution: inv_log_uniform_values, min: 0.0, max: 1}\n", 3, "a: min 0.0 has no logarithm"),
    (RANDOM + "  a: {distribution: log_uniform, min: 1, max: 1000}\n", 3, "a: log_uniform takes exponents of e"),
    (
        RANDOM + "  a: {distribution: inv_log_uniform, min: -701, max: 1}\n",
        3,
        "a: inv_log_uniform takes exponents of e",
    ),
    (RANDOM + "  a: {distribution: log_normal, mu: 600, sigma: 20}\n", 3, "a: log_normal takes exponents of e"),
    (RANDOM + "  a: {distribution: normal, sigma: 0}\n", 3, "a: sigma is 0: it must be above 0"),
    (RANDOM + "  a: {distribution: beta, a: 0}\n", 3, "a: a is 0: it must be above 0"),
    (RANDOM + "  a: {distribution: beta, b: -1}\n", 3, "a: b is -1: it must be above 0"),
    (RANDOM + "  a:\n    distribution: q_beta\n    q: 0\n", 5, "a: q is 0: it must be above 0"),
    (RANDOM + "  a:\n    values: [1, 2]\n    probabilities: [0.5, 0.4]\n", 5, "a: the probabilities add up to 0.9"),
    (RANDOM + "  a:\n    values: [1, 2]\n    probabilities: [1]\n", 5, "a: 1 probabilities for 2 values"),
    (RANDOM + "  a:\n    values: [1, 2]\n    probabilities: []\n", 5, "a: 0 probabilities for 2 values"),
    (RANDOM + "  a: {values: [1, 2], probabilities: [1.5, -0.5]}\n", 3, "must be numbers from 0 to 1"),
    (RANDOM + "  a: {values: [1, 2], probabilities: [true, 0]}\n", 3, "must be numbers from 0 to 1"),
    # a grid
    (GRID + "  b: {value: 1}\n  a: {min: 0.5, max: 1}\n", 4, "a: a grid cannot go through uniform: give values"),
    (GRID + "  a: {distribution: q_normal}\n", 3, "a: a grid cannot go through q_normal"),
    (GRID + "  a: {values: [1, 2], probabilities: [0.5, 0.5]}\n", 3, "cannot go through categorical_w_probabilities"),
    (GRID + "  a: {min: 0, max: 1000001}\n", 3, "a: over 1,000,000 values are too many for a grid"),
    (GRID + "  a: {distribution: q_uniform, min: 0, max: 1, q: 1.0e-7}\n", 3, "over 1,000,000 values"),
]
EARLY = "method: grid\nmetric: {name: l}\nparameters: {a: {value: 1}}\nearly_terminate: "
REFUSALS += [
    (EARLY + text, 4, sentence)
    for text, sentence in (
        ("hyperband", "early_terminate is the single value 'hyperband'"),
        ("{min_iter: 1}", "early_terminate has no type"),
        ("{type: median}", "unknown type 'median': choose one of hyperband"),
        ("{type: hyperband}", "early_terminate has no bands"),
        ("{type: hyperband, max_iter: 9}", "early_terminate has no bands"),
        ("{type: hyperband, max_iter: 9, min_iter: 1}", "min_iter (bands from there up) beside max_iter"),
        ("{type: hyperband, min_iter: 9, s: 1}", "keep min_iter alone, or the others"),
        ("{type: hyperband, min_iter: 0}", "min_iter is 0"),
        ("{type: hyperband, min_iter: 1.5}", "min_iter is 1.5"),
        ("{type: hyperband, max_iter: 9, s: 0}", "s is 0"),
        ("{type: hyperband, max_iter: 2, s: 1}", "max_iter / eta = 0.666667 is below the first iteration"),
        ("{type: hyperband, min_iter: 1, eta: 1}", "eta is 1: it must be a number above 1"),
        ("{type: hyperband, min_iter: 1, eta: null}", "eta is None: it must be a number above 1"),
        ("{type: hyperband, min_iter: 1, strict: 1}", "strict is 1: it must be true or false"),
        ("{type: hyperband, miniter: 1}", "did you mean 'min_iter'?"),
    )
]


@pytest.mark.parametrize(("text", "line", "sentence"), REFUSALS, ids=lambda value: str(value)[:60])
def test_refusals_say_where_and_what(text, line, sentence, tmp_path):
    with pytest.raises(InputError) as refusal:
        read(tmp_path, text)
    said = str(refusal.value)
    assert said.startswith(f"{tmp_path / 'sweep.yaml'}:{line}: ")
    assert sentence in said
    assert "\n" not in said


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"absent.yaml: there is no such file"):
        read_sweep(tmp_path / "absent.yaml")
    with pytest.raises(InputError, match="it is a folder"):
        read_sweep(tmp_path)


def test_names_that_the_configuration_has(tmp_path):
    known = {"task", "d", "optimizer.lr", "optimizer.beta", "weight"}
    assert len(read(tmp_path, FULL, known).parameters) == 5
    with pytest.raises(InputError) as refusal:
        read(tmp_path, FULL.replace("      lr:", "      rl:"), known)
    assert str(refusal.value) == (
        f"{tmp_path / 'sweep.yaml'}:18: unknown parameter 'optimizer.rl': did you mean 'optimizer.lr'? "
        "the configuration has d, optimizer.beta, optimizer.lr, task, weight"
    )
    with pytest.raises(InputError, match=r"sweep.yaml:12: unknown parameter 'task'"):
        read(tmp_path, FULL, known - {"task"})


def test_a_quoted_number_is_text_on_purpose(tmp_path):
    assert read(tmp_path, GRID + "  a: {values: ['1e-3', \"010\"]}\n").parameters[0].values == ("1e-3", "010")


def test_a_number_that_wandb_reads_as_text_is_handed_over_as_it_does(tmp_path):
    assert read(tmp_path, GRID + "  a: {values: [0.01, 5e-4]}\n").parameters[0].values == (0.01, "5e-4")


DAMAGE = ["", *":- \n[{}&*!'0\t", "1e5", "null", "!!int ", "!!str", "0x_", "<<: *x", "2024-13-45"]


@pytest.mark.parametrize("copies", [300, pytest.param(5000, marks=pytest.mark.long)])
def test_damaged_files_are_refused_or_read_but_never_fail_otherwise(copies, tmp_path):
    """Damaged copies of a whole file: a character changed, removed or doubled, a line moved or cut."""
    rng = stdlib_random.Random(0)
    refusals = []
    for _ in range(copies):
        text = FULL
        for _ in range(rng.randint(1, 3)):
            at, to = rng.randrange(len(text)), rng.randrange(len(text))
            insert = rng.choice(DAMAGE)
            text = text[:at] + insert + text[at + rng.randint(0, 2) :] + rng.choice(["", "", text[to : to + 20]])
        try:
            read(tmp_path, text)
        except InputError as refusal:
            refusals.append(str(refusal))
    assert 0 < len(refusals) < copies
    lines = [line for refusal in refusals for line in refusal.split("\n")]
    assert all(line.startswith(f"{tmp_path / 'sweep.yaml'}:") for line in lines)

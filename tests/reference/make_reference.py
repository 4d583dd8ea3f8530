"""Make the reference numbers that tests/reference holds later code to.

Run once, at commit 9a73484 (the last one before the house was rebuilt), with one thread:

    git worktree add OLD 9a73484
    cd OLD && OMP_NUM_THREADS=1 python FOLDER/make_reference.py numbers.json [default]

It uses nothing but the command line and the JSON files that it writes, so it also runs at later commits.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

SMALL = {"seeds": [0, 1], "threads": 1, "figures": False, "steps": 30}
COMPARE = {
    "constructions, at most 2": {"m": 10, "d": 16, "layers": ["all"], "task": ["and", "xor", "first_implies_second"]},
    "constructions, exactly 3": {"m": 9, "d": 25, "s": 3, "inputs": "exactly", "layers": ["all"], "layer_p": 0.4,
                                 "readoffs": ["own", "by_class", "minimax", "random_labels"]},
    "every readoff, independent": {"m": 8, "d": 12, "s": 1.6, "inputs": "independent", "task": ["and", "or"],
                                   "readoffs": ["constant", "analytic", "least_squares", "balanced", "by_class", "trained",
                                                "minimax", "random_labels"]},
    "kaiming, tanh": {"m": 10, "d": 14, "frozen_layer": "kaiming", "layer": "kaiming", "activation": "tanh"},
    "gelu, scale and bias": {"m": 10, "d": 14, "activation": "gelu", "layer_scale": 0.5, "layer_bias": -0.7},
    "quadratic": {"m": 10, "d": 14, "activation": "quadratic"},
    "sigmoid": {"m": 10, "d": 14, "activation": "sigmoid", "s": 3},
    "embedded, random frame": {"m": 10, "d": 14, "d0": 6, "layers": ["all"], "task": ["and"]},
    "embedded, optimised frame": {"m": 10, "d": 14, "d0": 6, "frame": "optimised", "s": 3, "inputs": "exactly"},
    "chosen pairs, weight 5, p = 3": {"m": 12, "d": 10, "pairs": [[0, 1], [5, 2], [3, 11], [4, 0]], "weight": 5.0,
                                      "p": [3.0], "task": ["first_and_not_second", "nand"]},
    "sampled minimax pairs, by value, no root": {"m": 14, "d": 12, "minimax_pairs": 20, "weight": "value", "root": False,
                                                 "p": [2.0, 4.0]},
    "adam": {"m": 12, "d": 10, "optimiser": "adam", "p": [4.0], "steps": 40, "lr": 0.01, "batch": 128},
}  # fmt: skip
TRAIN = {
    "adam, squared": {"m": 40, "d": 20, "optimiser": "adam", "p": [2.0], "steps": 25, "batch": 700, "lr": 0.01},
    "adam, squared, weight on ones": {"m": 40, "d": 20, "optimiser": "adam", "p": [2.0], "steps": 25, "batch": 700,
                                      "weight": 20.0},
    "adam, L4, cosine": {"m": 40, "d": 20, "optimiser": "adam", "p": [4.0], "steps": 25, "batch": 700, "lr_schedule": "cosine"},
    "adamw, L3, decay, all inputs": {"m": 12, "d": 20, "optimiser": "adamw", "p": [3.0], "steps": 40, "batch": "all",
                                     "weight_decay": 0.01, "lr_schedule": "linear"},
    "pairs sampled each step": {"m": 40, "d": 20, "optimiser": "adam", "p": [4.0], "steps": 25, "batch": 400,
                                "pairs_per_step": 100},
    "lbfgs, frozen layer": {"m": 30, "d": 20, "train_first": False, "steps": 40, "task": "xor"},
    "lbfgs, exactly 3": {"m": 16, "d": 20, "s": 3, "inputs": "exactly", "steps": 40},
}  # fmt: skip
TABLES = {
    "bounds": ["bounds"],
    "bounds, exactly 3": ["bounds", "--m", "30", "--d", "200", "--s", "3", "--inputs", "exactly", "--task", "and", "or", "nand"],
    "bounds, measured": ["bounds", "--m", "12", "--d", "40", "--check", "--seeds", *map(str, range(8))],
    "width": ["width"],
    "width, at most 3": ["width", "--m", "60", "--s", "3", "--epsilon", "0.1", "--task", "and", "xor", "first"],
}  # fmt: skip


def toymodels(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "toymodels", *words], check=True, stdout=subprocess.DEVNULL)


def run(kind: str, config: dict, folder: Path) -> dict:
    (folder / "config.json").write_text(json.dumps(config))
    toymodels("run", kind, str(folder / "config.json"), "--out", str(folder / "run"))
    toymodels("results", str(folder / "run"), "--out", str(folder / "table.jsonl"))
    rows = [json.loads(line) for line in (folder / "table.jsonl").read_text().splitlines()]
    kept = ("task", "first_layer", "readoff", "seed", "worst_error", "mean_worst_error", "rms_ones", "rms_zeros",
            "within_quarter", "covered", "n_pairs", "proved")  # fmt: skip
    result = {"config": config, "rows": [{key: row[key] for key in kept} for row in rows]}
    if kind == "compare":
        content = json.loads((folder / "run" / "results.json").read_text())
        result["genericity"] = {task: answer["ratio"] for task, answer in content["genericity"].items()}
    return result


def packed(content: dict) -> dict:
    """Write rows as lists under one list of columns."""
    if "rows" not in content:
        return {name: packed(part) for name, part in content.items()}
    columns = list(dict.fromkeys(key for row in content["rows"] for key in row))
    rows = [[row.get(column) for column in columns] for row in content["rows"]]
    return {**content, "columns": columns, "rows": rows}


def main() -> None:
    out, default = Path(sys.argv[1]), "default" in sys.argv[2:]
    found: dict = {"compare": {}, "train": {}, "tables": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for kind, configs in (("compare", COMPARE), ("train", TRAIN)):
            for name, config in configs.items():
                settings = {key: value for key, value in SMALL.items() if kind == "compare" or key != "figures"}
                folder = Path(scratch) / kind / name.replace(" ", "_")
                folder.mkdir(parents=True)
                found[kind][name] = run(kind, {**settings, **config}, folder)
        for name, words in TABLES.items():
            path = Path(scratch) / "table.json"
            toymodels(*words, "--json", str(path))
            rows = json.loads(path.read_text())["rows"]
            kept = ("task", "name", "value", "kind", "measured", "interval")
            found["tables"][name] = {"words": words, "rows": [{k: row[k] for k in kept if k in row} for row in rows]}
        if default:
            folder = Path(scratch) / "default"
            folder.mkdir()
            found["default"] = run("compare", {"threads": 1, "figures": False}, folder)
    lines = [f" {json.dumps(part)}: {json.dumps(packed(content))}" for part, content in found.items()]
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()

"""Measure the checks of `toymodels reproduce code` on the networks that the authors of arXiv:2607.04800 have shipped.

FOLDER holds l4.safetensors and l2.safetensors, each with W_in (neurons × features) and W_out (features × neurons).

    python analysis/shipped_code.py FOLDER     # rows: analysis/results/compressed/shipped.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from toymodels.compressed.stack import network
from toymodels.errors import InputError
from toymodels.reproductions.l4_code import checks
from toymodels.runs.elsewhere import read_weights
from toymodels.runs.storage import write_text

NETWORKS = ("l4", "l2")


def main(words: Sequence[str] | None = None) -> None:
    """Measure both networks on inputs of seed 0, and write a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="holds l4.safetensors and l2.safetensors")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "compressed")
    parser.add_argument("--inputs", type=int, default=204_800, help="sampled inputs")
    options = parser.parse_args(words)
    if options.inputs < 100:
        parser.error(f"--inputs {options.inputs}: at least 100 are needed")
    lines = []
    try:
        weights = [read_weights(options.folder / f"{name}.safetensors") for name in NETWORKS]
    except InputError as error:
        parser.error(str(error))
    if not all({"W_in", "W_out"} <= set(one) and one["W_in"].T.shape == one["W_out"].shape for one in weights):
        parser.error("each file must hold W_in (neurons × features) and W_out (features × neurons)")
    for name, one in zip(NETWORKS, weights, strict=True):
        d, n = one["W_in"].shape
        key = {"n": n, "d": d, "eval": options.inputs}
        found = checks(network(one["W_in"], one["W_out"]), 0, key)
        lines.append(json.dumps({"kind": name.upper(), **key, **found}))
    write_text(options.out / "shipped.jsonl", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

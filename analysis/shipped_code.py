"""Measure the checks of `toymodels reproduce code` on the networks that the authors of arXiv:2607.04800 have shipped.

FOLDER holds l4.safetensors and l2.safetensors; the rows go to analysis/results/compressed/shipped.jsonl.

    python analysis/shipped_code.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from safetensors.torch import load_file

from toymodels.compressed.stack import network
from toymodels.reproductions.l4_code import checks

KEY = {"n": 100, "d": 50, "eval": 204_800}


def main(folder: Path) -> None:
    """Measure both networks on inputs of seed 0, and write a line for each."""
    lines = []
    for name in ("l4", "l2"):
        weights = load_file(folder / f"{name}.safetensors")
        found = checks(network(weights["W_in"], weights["W_out"]), 0, KEY)
        lines.append(json.dumps({"kind": name.upper(), **KEY, **found}))
    (Path(__file__).parent / "results" / "compressed" / "shipped.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

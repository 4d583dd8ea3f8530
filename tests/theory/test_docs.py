"""docs/theory.md: what it points to is there, and its tables are what the functions compute."""

import importlib
import re
from pathlib import Path

import pytest

from toymodels.theory.distributions import RADEMACHER
from toymodels.theory.gates import Gate
from toymodels.theory.quadrants import and_scale, error_std
from toymodels.theory.two_valued import sign_readoff

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "theory.md").read_text()
AND, XOR = Gate.parse("and"), Gate.parse("xor")


def resolve(name: str) -> object:
    """The object of a dotted name below toymodels.theory or toymodels."""
    parts = name.split(".")
    for package in ("toymodels.theory", "toymodels"):
        for cut in range(len(parts), 0, -1):
            try:
                found = importlib.import_module(".".join([package, *parts[:cut]]))
            except ModuleNotFoundError:
                continue
            for part in parts[cut:]:
                found = getattr(found, part)
            return found
    raise AssertionError(f"docs/theory.md points to {name}, which is nowhere")


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_]+(?:\.\w+)+)`", TEXT))))
def test_what_it_points_to_is_there(name):
    assert resolve(name) is not None


def test_every_citation_has_its_section():
    sections = set(re.findall(r"^## (\d+)\.", TEXT, re.MULTILINE)) | set(
        re.findall(r"^### (\d+\.\d+) ", TEXT, re.MULTILINE)
    )
    assert {"0", "1", "2", "3", "4", "5", "6", "7", "8"} <= sections
    cited = set()
    for file in (ROOT / "toymodels").rglob("*.py"):
        words = " ".join(file.read_text().split())
        cited |= {number for part in re.findall(r"docs/theory\.md, sections? ([\d., and]+)", words)
                  for number in re.findall(r"\d+(?:\.\d+)?", part)}  # fmt: skip
    assert len(cited) > 3
    assert cited <= sections


def test_the_table_of_constants():
    rows = re.findall(
        r"^\| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+), ([\d.]+), ([\d.]+) \|$", TEXT, re.MULTILINE
    )
    assert [int(row[0]) for row in rows] == [2, 3, 8]
    for row in rows:
        s, numbers = int(row[0]), [float(number) for number in row[1:]]
        expected = [and_scale(s), *error_std(AND, s)[[0, 3]], *error_std(XOR, s)[[0, 1, 3]]]
        assert numbers == pytest.approx(expected, abs=5.1e-5)


def test_the_constants_of_a_rademacher_layer():
    assert "c = 2, 4, 4, 6.4" in TEXT
    assert "σ_s = 2, √24 = 4.899, √32 = 5.657, 12.8" in TEXT
    for s, c, square in ((2, 2, 4), (3, 4, 24), (4, 4, 32), (8, 6.4, 12.8**2)):
        readoff = sign_readoff(RADEMACHER, s)
        assert readoff.c == pytest.approx(c, abs=1e-12)
        assert (readoff.sigma**2).tolist() == pytest.approx([square, square, square, square - 1], abs=1e-9)

"""What the README shows, runs."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_a_layer_a_task_and_a_readoff_of_ones_own(capsys):
    exec(compile(BLOCKS[0], "README.md", "exec"), {})
    errors = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(errors["minimax"]) < float(errors["ridge"])


def test_the_certificate_is_checked_as_shown(tmp_path, monkeypatch, capsys):
    from toymodels.cli import main

    monkeypatch.chdir(tmp_path)
    arguments = ["--m", "12", "--d", "16", "--steps", "40", "--task", "and", "--minimax-pairs", "3"]
    assert main(["compare", *arguments, "--out", "runs/compare"]) == 0
    capsys.readouterr()
    code = BLOCKS[1].replace("at_most(50, 2)", "at_most(12, 2)")
    exec(compile(code, "README.md", "exec"), {})
    first, second = (list(map(float, line.split())) for line in capsys.readouterr().out.splitlines())
    assert first[0] == pytest.approx(1, abs=1e-9)
    assert first[1] < 1e-9
    assert second[0] == pytest.approx(second[1], abs=1e-9)
    assert second[0] > 0.01

"""How to cite: version and commit, of this package and of a run."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from toymodels.cli import main
from toymodels.runs import citation

ROOT = Path(__file__).parents[2]


def test_the_version_is_the_same_everywhere(capsys):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for option in ("--version", "-V"):
        assert main([option]) == 0
        assert capsys.readouterr().out == f"toymodels {version}\n"
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(cited["version"]) == version
    assert main(["cite"]) == 0
    entry = capsys.readouterr().out
    assert f"version = {{{version}}}" in entry
    assert f"title   = {{{cited['title']}}}" in entry
    assert cited["authors"][0]["name"] in entry


@pytest.mark.parametrize("commit", ["0123456789abcdef", None])
def test_the_commit_stands_in_it_if_there_is_one(commit, monkeypatch):
    monkeypatch.setattr(citation, "commit", lambda: commit)
    entry = citation.citation()
    assert (f"note    = {{commit {commit}}}" in entry) == (commit is not None)
    assert entry.count("{") == entry.count("}")


def test_a_run_is_cited_with_what_it_was_done_with(tmp_path, capsys):
    about = {"packages": {"toymodels": "7.8"}, "commit": "abc-modified"}
    for content in (about, [{"packages": {"toymodels": "7.7"}, "commit": "aaa"}, about]):
        (tmp_path / "environment.json").write_text(json.dumps(content))
        assert main(["cite", str(tmp_path)]) == 0
        assert re.findall(r"version = {7.8}|commit abc-modified", capsys.readouterr().out) == [
            "version = {7.8}",
            "commit abc-modified",
        ]
    for content in ("{}", "[]", "3"):
        (tmp_path / "environment.json").write_text(content)
        assert main(["cite", str(tmp_path)]) == 2
        assert "damaged" in capsys.readouterr().err
    assert main(["cite", str(tmp_path / "nowhere")]) == 2
    assert "is missing" in capsys.readouterr().err

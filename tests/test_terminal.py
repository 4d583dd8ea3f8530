"""Neither the encoding of a terminal, nor a reader that has gone, nor a full disk for the log ends a command in a traceback."""

import errno
import io
import os
import sys

import pytest

from toymodels.cli import main

TRAIN = ["train", "--m", "5", "--d", "4", "--steps", "5", "--threads", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder whose name no terminal below can show, with a run."""
    folder = tmp_path_factory.mktemp("runs") / "ε−∂"
    assert main([*TRAIN, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "koi8-r", "cp932"])
@pytest.mark.parametrize("command", [["show"], ["results"], ["--help"], ["show", "nowhere/ε−∂"]])
def test_text_that_a_terminal_cannot_show_ends_no_command(command, encoding, run, monkeypatch):
    bytes_out, bytes_err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_out, encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(bytes_err, encoding))
    missing = len(command) == 2
    assert main(command if missing or command == ["--help"] else [*command, str(run)]) == (2 if missing else 0)
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = (written.getvalue().decode(encoding) for written in (bytes_out, bytes_err))
    if missing:
        assert err.count("\n") == 1
        assert "is missing" in err
    elif encoding == "ascii" and command != ["--help"]:
        assert "worst error: largest |output - target| over" in out
        assert "<= 1/4" in out or command == ["results"]


def test_a_reader_that_has_gone_ends_a_command_quietly(run, monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    with open(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["results", str(run)]) == 141
        pipe.write("nobody")  # nothing is left to fail when Python ends
    assert capsys.readouterr().err == ""


class Full(io.StringIO):
    def write(self, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_progress_that_cannot_be_written_ends_no_computation(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Full())
    assert main([*TRAIN, "--out", str(tmp_path / "run")]) == 0
    assert "record: " in capsys.readouterr().out


def test_a_full_disk_for_the_output_is_one_sentence(run, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["results", str(run)]) == 1
    said = capsys.readouterr().err
    assert said == "toymodels: standard output cannot be written (No space left on device): give it another place\n"

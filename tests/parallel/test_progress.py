import io
import sys
import time
from types import SimpleNamespace

import pytest

from toymodels.parallel import processes, progress
from toymodels.parallel.progress import Bar, jobs_follow, plan, tell_if_slow


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until the test moves it; this process shows its progress."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(progress, "_whole", progress._Whole())
    return clock


def work(clock, bar, units, seconds):
    for _ in range(units):
        clock.now += seconds
        bar.to(bar.done + 1, loss="0.5")


@pytest.mark.parametrize(("units", "lines"), [(1000, 16), (10_000, 19), (30, 0)])
def test_a_file_gets_a_line_now_and_then(units, lines, clock, capsys):
    """Every minute, or every 5 % if that takes longer; and no cursor codes."""
    with Bar("and seed 0", units, "step") as bar:
        work(clock, bar, units, 1.0)
    said = capsys.readouterr().err
    first, *rest, last = said.splitlines()
    assert first == f"and seed 0: 0/{units} steps"
    assert last.startswith(f"and seed 0: {units}/{units} steps, done in ")
    assert last.endswith("loss=0.5")
    assert lines <= len(rest) <= lines + 1
    assert "\r" not in said
    assert "\x1b" not in said


def test_time_left_counts_from_where_a_stopped_run_goes_on(clock, capsys, monkeypatch):
    with Bar("and", 1000, "step") as bar:
        bar.skip(500)
        work(clock, bar, 60, 1.0)
    assert "and: 560/1000 steps, 1:00 so far, about 7:20 left, loss=0.5" in capsys.readouterr().err.splitlines()
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    with Bar("and", 1000, "step") as bar:
        bar.skip(500)
        bar.to(510)
        assert (bar._terminal.n, bar._terminal.initial) == (510, 500)
        assert bar._terminal.format_dict["total"] == 1000


def test_the_whole_run_is_estimated_from_the_bars_to_come(clock, capsys):
    """Two trainings and a readoff in each of two jobs; one training takes 100 s, and the readoff 200 s."""
    jobs_follow(1)
    plan(step=2, output=1)
    with Bar("first", 100, "step") as bar:
        work(clock, bar, 100, 1.0)
    assert "about 0:40 left, at least 5:40 for the whole run" in capsys.readouterr().err  # readoffs are not known yet
    with Bar("readoff", 100, "output") as bar:
        work(clock, bar, 100, 2.0)
    assert "about 2:20 left, about 10:40 for the whole run" in capsys.readouterr().err  # 140 + 100 here, then 400


def test_what_shows_nothing(clock, capsys, monkeypatch):
    with Bar("", 10, "step") as bar:
        work(clock, bar, 10, 60.0)
    with Bar("in a terminal only", 10, "step", in_files=False) as bar:
        work(clock, bar, 10, 60.0)
    monkeypatch.setattr(processes, "_alone", True)
    with Bar("one of many", 10, "step") as bar:
        work(clock, bar, 10, 60.0)
    assert capsys.readouterr().err == ""


class Gone(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_log_on_a_full_disk_stops_no_work(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Gone())
    with Bar("and", 100, "step") as bar:
        work(clock, bar, 100, 10.0)
    assert bar.done == 100


@pytest.mark.parametrize(("seconds", "says"), [(0.0, False), (0.2, True)])
def test_slow_work_says_what_it_is(seconds, says, monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.05)
    with tell_if_slow("measuring errors"):
        time.sleep(seconds)
    assert capsys.readouterr().err == ("measuring errors …\n" if says else "")


def test_slow_work_that_has_spoken_says_no_more(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.05)
    with tell_if_slow("measuring errors"), Bar("and", 1, "step"):
        time.sleep(0.2)
    assert "measuring" not in capsys.readouterr().err

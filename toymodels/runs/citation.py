"""Write how to cite this package, with its version and commit."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from toymodels.runs.record import commit
from toymodels.runs.storage import damaged, read_json

_ENTRY = """@software{{toymodels,
  title   = {{toymodels: a laboratory for computation in superposition}},
  author  = {{{{The toymodels authors}}}},
  year    = {{2026}},
  license = {{MIT}},
  version = {{{version}}},{note}
}}"""


def last_session(run: Path) -> dict[str, Any]:
    """Return versions and commit of the session that ended a run. Raises InputError for a folder without the record of one."""
    path = run / "environment.json"
    content = read_json(path)
    last = content[-1] if isinstance(content, list) and content else content  # a list: one for each session
    if not isinstance(last, dict) or not isinstance(last.get("packages"), dict):
        raise damaged(path, "it does not say which versions the run was done with")
    return last


def citation(run: Path | None = None) -> str:
    """Return a BibTeX entry with the version and commit that are installed here, or those that a run was done with.

    Raises InputError for a folder without the record of a run.
    """
    if run is None:
        version, done_with = importlib.metadata.version("toymodels"), commit()
    else:
        session = last_session(run)
        version, done_with = session["packages"].get("toymodels"), session.get("commit")
    note = f"\n  note    = {{commit {done_with}}}," if done_with else ""
    return _ENTRY.format(version=version, note=note)

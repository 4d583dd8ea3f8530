"""Write how to cite this package, with its version and commit."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from toymodels.runs.record import commit, read_sessions

_ENTRY = """@software{{toymodels,
  title   = {{toymodels: a laboratory for computation in superposition}},
  author  = {{{{The toymodels authors}}}},
  year    = {{2026}},
  license = {{MIT}},
  version = {{{version}}},{note}
}}"""


def citation(run: Path | None = None) -> str:
    """Return a BibTeX entry with the version and commit that are installed here, or those that a run was done with.

    Raises InputError for a folder without the record of a run.
    """
    if run is None:
        version, done_with = importlib.metadata.version("toymodels"), commit()
    else:
        session = read_sessions(run / "environment.json")[-1]  # that which ended it
        version, done_with = session["packages"].get("toymodels"), session.get("commit")
    note = f"\n  note    = {{commit {done_with}}}," if done_with else ""
    return _ENTRY.format(version=version, note=note)

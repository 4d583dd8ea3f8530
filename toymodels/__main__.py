"""The command `toymodels`, and `python -m toymodels`: it heeds signals before it imports anything large."""

import sys

from toymodels.parallel import stopping


def main() -> int:
    """Run the command line as a process of its own, and return its exit status."""
    stopping.heed_signals()
    from toymodels.cli import main as run

    status = run()
    stopping.work_is_done(status)
    return status


if __name__ == "__main__":
    sys.exit(main())

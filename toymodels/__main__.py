"""`python -m toymodels`."""

import sys

from toymodels.cli import main

if __name__ == "__main__":
    sys.exit(main())

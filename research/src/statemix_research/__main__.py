"""`python -m statemix_research`: the command."""

import sys

from statemix_research.cli import main

if __name__ == "__main__":
    sys.exit(main())

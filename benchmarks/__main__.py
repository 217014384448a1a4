"""`python -m benchmarks`: the commands that measure speed."""

import sys

from statemix.cli import main

if __name__ == "__main__":
    sys.exit(main("benchmarks.app"))

"""`python -m tools.aot_check`."""

import sys

from tools.aot_check.command import main

if __name__ == "__main__":
    sys.exit(main())

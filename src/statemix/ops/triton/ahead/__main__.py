"""`python -m statemix.ops.triton.ahead`."""

import sys

from statemix.ops.triton.ahead.command import main

if __name__ == "__main__":
    sys.exit(main())

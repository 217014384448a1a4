"""`python -m statemix.cli` is `statemix`."""

import sys

from statemix.cli import main

sys.exit(main())

"""`python -m statemix` is `statemix`."""

import sys

from statemix.cli import main

sys.exit(main())

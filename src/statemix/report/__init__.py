"""One page about one or more runs: figures, a table, the configurations."""

from statemix.report.figures import new_figure, render
from statemix.report.page import check_picture, write_readme_picture, write_report
from statemix.report.palette import LOOKS, MAX_SERIES, OTHERS, Look, look_of

__all__ = [
    "LOOKS",
    "MAX_SERIES",
    "OTHERS",
    "Look",
    "check_picture",
    "look_of",
    "new_figure",
    "render",
    "write_readme_picture",
    "write_report",
]

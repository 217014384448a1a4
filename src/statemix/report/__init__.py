"""One page about one or more runs: figures, a table, the configurations."""

from statemix.report.drawing import (
    LOOKS,
    MAX_SERIES,
    OTHERS,
    Look,
    draw_eigenvalues,
    draw_line,
    look_of,
    new_figure,
    new_panels,
    render,
)
from statemix.report.page import check_picture, write_readme_picture, write_report

__all__ = [
    "LOOKS",
    "MAX_SERIES",
    "OTHERS",
    "Look",
    "check_picture",
    "draw_eigenvalues",
    "draw_line",
    "look_of",
    "new_figure",
    "new_panels",
    "render",
    "write_readme_picture",
    "write_report",
]

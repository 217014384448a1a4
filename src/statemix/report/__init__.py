"""One page about one or more runs: figures, a table, the configurations."""

from statemix.report.page import check_picture, write_readme_picture, write_report

__all__ = ["check_picture", "write_readme_picture", "write_report"]

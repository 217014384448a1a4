"""One page about one or more runs: figures, a table, the configurations."""

from statemix.report.page import write_readme_picture, write_report

__all__ = ["write_readme_picture", "write_report"]

"""The evidence behind statemix: baselines, sweeps, and the tables and figures of arXiv 2602.12021."""

"""Checks of statemix that need no GPU."""

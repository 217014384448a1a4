"""Measurements of speed: what is measured, against whom, and how it is recorded."""

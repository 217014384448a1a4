"""How fast the scans and layers are: `python -m benchmarks`, from the root of the repository."""

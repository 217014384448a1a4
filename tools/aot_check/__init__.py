"""Compile every kernel ahead of time, for GPUs that are not here, and compare what it takes with what is recorded.

    python -m tools.aot_check --check benchmarks/records/kernel_resources.json

`machine` is a GPU that runs nothing and tells registers, spills and shared memory, `cases` are calls that a user can
make, `selection` says which of them are compiled, `record` keeps what they take in a file and compares.
"""

"""Benchmarks: `python -m bench` runs all of them, `python -m bench.NAME` one. They print tables and assert nothing."""

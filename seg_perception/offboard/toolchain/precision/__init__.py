"""Precision in the graph: float16 by explicit types, its emulation, and what a graph costs in each type."""

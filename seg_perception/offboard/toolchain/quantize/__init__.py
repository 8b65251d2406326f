"""INT8 by explicit Q/DQ: which layers, which scales, what it costs, and what is done when it costs too much."""

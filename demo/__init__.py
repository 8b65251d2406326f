"""The demo: a camera process, the node and a viewer process, over real DDS on this machine.

`session` runs the three and collects what they measured; the benchmarks use it too.
"""

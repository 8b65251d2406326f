"""The terminal monitor `seg_perception top`: load of the machine, nodes, table."""

"""The straight line from a frame to its instance map, the same for the node, replay, calibration and evaluation."""

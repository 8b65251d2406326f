"""Recorded frames through the pipeline, every one of them, into a bag with the node's own messages."""

"""Frames from images, videos and bags, and what nodes have published."""

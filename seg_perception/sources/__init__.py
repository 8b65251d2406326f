"""Frames from images, videos and encoded buffers, and the files that describe their classes."""

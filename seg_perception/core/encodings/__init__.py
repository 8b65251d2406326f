"""Encoded images and image buffers, turned into arrays in one place for the node, replay and labels."""

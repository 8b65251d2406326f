"""Masks and points to objects with a place: geometry and labelling, without ROS."""

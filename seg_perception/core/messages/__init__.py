"""Serialized ROS messages, read and written without ROS: the node and the replay of bags share them byte for byte."""

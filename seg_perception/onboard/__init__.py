"""What drives: backends, the pipeline, the ROS 2 nodes, and the commands that look at them."""

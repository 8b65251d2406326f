"""The ROS 2 node. rclpy and message packages are imported here and nowhere else."""

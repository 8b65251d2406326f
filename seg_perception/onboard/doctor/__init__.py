"""What `seg_perception doctor` looks at, a module for each group of checks.

A check takes what it needs to know as arguments and returns findings; nothing here prints, and nothing here needs ROS,
a GPU or any package beyond the standard library to be imported: what is missing is just what a doctor has to find.
"""

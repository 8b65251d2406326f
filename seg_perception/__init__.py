"""Per-instance masks of road users and traffic control from camera images.

Importing this package is cheap on purpose: it pulls in nothing beyond the
standard library, so `--help` and version queries work without ROS or a backend.
"""

__version__ = "0.1.0"

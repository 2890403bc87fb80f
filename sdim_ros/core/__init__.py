"""The method itself, in NumPy and PyTorch. Nothing in this folder knows ROS."""

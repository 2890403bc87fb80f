"""Bags of ROS as a source of frames, read without ROS."""

"""Depth completion with a vision-language model (SDIM): core, ROS 2 node and tools."""

__version__ = "0.1.0"

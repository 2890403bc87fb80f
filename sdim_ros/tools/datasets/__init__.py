"""Frames to measure, train on and convert: one module a format, opened by `catalogue`."""

"""The command line: complete, demo, evaluate, train and bench. Built on the core."""

"""The command line `sdim`: a module for each verb, and what they share. Built on the core."""

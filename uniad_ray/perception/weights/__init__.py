"""Weights of networks: where they come from, and how their files are checked and loaded."""

"""Comparison of runs, rendered as one HTML file."""

"""The comparison of runs: built from runs, rendered as one HTML file."""

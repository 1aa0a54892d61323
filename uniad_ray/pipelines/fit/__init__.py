"""Fit pipeline: fits categories in parallel on Ray."""

"""Fits of categories in parallel on Ray."""

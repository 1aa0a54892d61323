"""Verbs of archives: draw, ingest and inspect images, and precompute their features."""

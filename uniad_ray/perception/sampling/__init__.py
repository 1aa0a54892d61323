"""Samples of vectors and images that depend on neither order nor batching."""

"""Samples of vectors and images, independent of order and batching."""

"""Samples of vectors and images that depend on neither order nor batching.

`image_sample` needs no torch; `candidate_sample` does.
"""

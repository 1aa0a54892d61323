"""Segmentation of images: k-means components, parts, SAM, Grounded SAM."""

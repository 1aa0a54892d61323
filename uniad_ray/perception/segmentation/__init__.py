"""Segmentation of images: k-means components, parts, SAM, Grounded SAM.

Each `*_segmenter` module and `components` hold an extractor; the others are steps of these.
"""

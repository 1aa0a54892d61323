"""Segmentation of images: k-means components, labels by colour, parts; `sam` has SAM and Grounded SAM.

`components`, `colour_labels` and `part_segmenter` hold an extractor each; the other modules are steps of these.
"""

"""Image segmentation: k-means components, parts, SAM and Grounded SAM."""

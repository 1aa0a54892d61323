"""Segmentation by SAM: everything in an image, or the boxes that Grounding DINO finds for a list of classes."""

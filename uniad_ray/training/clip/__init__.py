"""Tuning of CLIP on labelled crops of objects."""

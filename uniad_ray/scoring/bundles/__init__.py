"""Bundles: the stored form of a fitted category, its versions, and the images it keeps."""

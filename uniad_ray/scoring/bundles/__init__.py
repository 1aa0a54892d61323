"""Bundles: the stored form of a fitted category, its versions, and its reference and gallery images."""

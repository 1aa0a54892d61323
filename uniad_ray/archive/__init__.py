"""Stored images: object stores, Parquet shards, layouts, manifests and synthetic scenes."""

"""Stored images: object stores, Parquet shards, layouts, manifests and synthetic scenes.

`manifest` and `shards` read an archive; `ingest` writes one; `images` decodes untrusted files.
"""

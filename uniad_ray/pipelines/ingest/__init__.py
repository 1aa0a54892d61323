"""Ingest on Ray Data: source images to Parquet shards."""

"""Ingest pipeline: reads source images into Parquet shards with Ray Data."""

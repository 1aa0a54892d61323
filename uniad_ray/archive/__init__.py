"""Images at rest: object stores, Parquet shards, layouts, manifests, synthetic scenes."""

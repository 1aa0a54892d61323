"""The scoring replicas: loaded bundles, batches, captions."""

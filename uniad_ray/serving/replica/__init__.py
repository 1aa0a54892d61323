"""The scoring replicas: loaded bundles, batches, captions.

`deployment` wraps `scorer` for Ray Serve. Nothing here speaks HTTP.
"""

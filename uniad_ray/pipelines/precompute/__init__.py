"""Precomputed features, segments and descriptions, stored as a sidecar by Ray Data."""

"""Shared parts of experts: memory banks, nearest neighbours, patch features, anomaly maps."""

"""What several experts use: memory banks, nearest neighbours, patch features, anomaly maps."""

"""The operations on finished runs: browse, preview thresholds, review."""

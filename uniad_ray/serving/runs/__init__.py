"""Operations on finished runs: browse, preview thresholds, review."""

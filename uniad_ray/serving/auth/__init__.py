"""Access keys and rate limits."""

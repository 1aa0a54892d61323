"""Score pipeline: scores archives with Ray Data."""

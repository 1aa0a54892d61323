"""The last nights as one HTML page."""

"""Web pages and their scripts."""

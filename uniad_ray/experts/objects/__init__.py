"""The object memory (TMUAD)."""

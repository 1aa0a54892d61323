"""The text experts: text memory (TMUAD) and text similarity (UniAD)."""

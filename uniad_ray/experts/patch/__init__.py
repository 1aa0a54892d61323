"""The patch memory (TMUAD, PatchCore)."""

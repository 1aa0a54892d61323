"""Network weights: sources, checksums and loading."""

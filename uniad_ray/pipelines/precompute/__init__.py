"""Precompute pipeline: stores features, segments and descriptions in a sidecar with Ray Data."""

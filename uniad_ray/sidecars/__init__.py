"""Sidecars of precomputed fields: plan, stages, encoding, fingerprints and reader."""

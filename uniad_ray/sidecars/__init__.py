"""A sidecar at rest: plan, stages, encoding, fingerprints and reader."""

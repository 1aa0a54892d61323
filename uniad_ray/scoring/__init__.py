"""Scoring: extract features, score with every expert, calibrate and fuse; and the bundles that store a scorer."""

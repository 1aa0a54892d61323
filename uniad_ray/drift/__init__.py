"""Drift: how the images and scores of a night differ from the calibration images and from the last nights."""

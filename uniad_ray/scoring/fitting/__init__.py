"""Fit of one category: splits, calibration, and expert selection on synthetic anomalies."""

"""The fit of one category: splits, calibration data, expert selection on synthetic anomalies."""

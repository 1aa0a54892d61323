"""The fit of one category: splits, calibration data, expert selection on synthetic anomalies.

`category` runs the fit and needs torch. `perceptions` and `normal_images`, which jobs import, do not.
"""

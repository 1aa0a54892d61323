"""The fit of one category: splits, calibration data, and in `selection` the expert selection.

`category` runs the fit and needs torch. `perceptions` and `normal_images`, which jobs import, do not.
"""

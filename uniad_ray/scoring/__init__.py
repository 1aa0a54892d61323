"""The scorer: extract, let the experts judge, calibrate, fuse; and the bundle that stores it."""

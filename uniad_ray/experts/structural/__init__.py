"""The structural experts: a discriminator of patch features, and the discrepancy of teacher and student (UniAD)."""

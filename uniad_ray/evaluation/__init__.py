"""A run against its labels: labelled images, image, pixel and paired metrics."""

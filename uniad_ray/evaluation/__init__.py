"""Evaluation of runs against labels and masks: image, pixel and paired metrics."""

"""Metrics of scores and anomaly maps against labels and masks."""

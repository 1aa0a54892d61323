"""Selects the experts of a category by their scores of synthetic anomalies and of known defects."""

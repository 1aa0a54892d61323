"""Synthetic products: a seed draws a product with its parts, its written rules and its anomalies."""

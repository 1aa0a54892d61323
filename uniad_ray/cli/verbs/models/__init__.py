"""Verbs of models: fit and tune them, list their bundles, and reproduce the tables of the papers."""

"""Verbs of the endpoint."""

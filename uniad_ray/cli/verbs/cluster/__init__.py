"""Verbs for machines and clusters."""

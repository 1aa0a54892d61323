"""Verbs of results: score, evaluate, report, compare and nightly."""

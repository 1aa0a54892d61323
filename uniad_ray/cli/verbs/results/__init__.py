"""Verbs of results: score, evaluate, report and compare."""

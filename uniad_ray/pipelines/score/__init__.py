"""Scoring runs on Ray Data."""

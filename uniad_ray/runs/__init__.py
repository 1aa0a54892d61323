"""Stored scoring runs: plan, scores, maps, timings and reviews."""

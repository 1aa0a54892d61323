"""Tuning of CLIP on Ray Train."""

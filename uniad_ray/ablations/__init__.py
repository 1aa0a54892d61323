"""Ablation tables of both papers, computed with the pipelines."""

"""The ablation tables of both papers, filled in through the pipelines."""

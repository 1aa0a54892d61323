"""The ablation tables of both papers, filled in through the pipelines.

`ablate` computes a table; `tmuad` and `uniad` define its rows.
"""

"""The report of a run as one HTML file, JSON, Parquet or Markdown.

`build` computes and writes it; `model` defines its content.
"""

"""The report of a run as one HTML file, JSON, Parquet or Markdown."""

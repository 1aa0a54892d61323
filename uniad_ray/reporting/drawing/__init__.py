"""Charts and pictures of a report.

`charts` needs Matplotlib; `pictures` does not.
"""

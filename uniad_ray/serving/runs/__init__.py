"""The operations on finished runs: browse, preview thresholds, review.

`api` holds the operations, `browser` the open runs, `review` the stored marks.
"""

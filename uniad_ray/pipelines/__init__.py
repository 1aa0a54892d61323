"""Ray Data and Ray Train around the layers below: ingest, fit, score, evaluate.

Each pipeline is a subpackage whose `job` runs on the driver; `cluster` holds what they share.
"""

"""Ray Data and Ray Train around the layers below: ingest, fit, score, evaluate."""

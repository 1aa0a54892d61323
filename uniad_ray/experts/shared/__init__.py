"""What several experts use: memory banks, nearest neighbours, patch features, anomaly maps.

Import each helper from its module: only some of them need faiss.
"""

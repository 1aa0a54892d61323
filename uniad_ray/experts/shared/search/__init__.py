"""Search of a memory bank: exhaustive, by product codes, or in an inverted file.

Import each search from its module: all of them need faiss.
"""

"""Descriptions of images and their text embeddings.

`*_describer` modules write descriptions; `encoders` and `tfidf` embed them.
"""

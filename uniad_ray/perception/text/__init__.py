"""Descriptions of images and their text embeddings."""

"""Text descriptions of images and their embeddings."""

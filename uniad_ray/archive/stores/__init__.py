"""Stores of objects: the local disk and S3 behind one `Location`."""

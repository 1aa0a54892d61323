"""Feature extraction: networks and extractors that describe a batch of images."""

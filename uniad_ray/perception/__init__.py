"""What frozen networks say of a batch of images."""

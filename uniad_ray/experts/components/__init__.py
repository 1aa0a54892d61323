"""The component memory: size, colour and pieces of the components of an image (UniAD)."""

"""Networks that turn images into feature maps: teachers, ViT encoders, the student."""

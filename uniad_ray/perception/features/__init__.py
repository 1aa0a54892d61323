"""Networks that compute feature maps: teachers, ViT encoders and the student."""

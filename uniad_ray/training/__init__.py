"""Training of the student and of CLIP in plain torch: losses, order of images, checkpoints and loops."""

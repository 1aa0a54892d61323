"""Distillation of the student: losses, order of images, checkpoints and the loop, in plain torch."""

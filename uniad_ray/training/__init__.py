"""Training of the student and of CLIP in plain torch: losses, order of images, checkpoints and loops.

`distillation` trains the student, `clip` tunes CLIP; the other modules are their parts.
"""

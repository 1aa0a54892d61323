"""The component memory: size, colour and pieces of the components of an image (UniAD).

`memory` is the expert. Other experts use `features` and `bank`, which do not need scikit-learn.
"""

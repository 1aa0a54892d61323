"""Tuning of CLIP on labelled crops of objects.

`tuning` is the loop, `crop_classifier` the model, `labelled_crops` the data, `folder` the result.
"""

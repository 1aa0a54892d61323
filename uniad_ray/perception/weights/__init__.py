"""Weights of networks: where they come from, and how their files are checked and loaded.

`sources` loads single files, `model_folders` finds folders of models, `pretrained_networks` loads these.
"""

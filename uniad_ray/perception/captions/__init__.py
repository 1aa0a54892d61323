"""Captions by a vision-language model: the engine, a server, or a table of stored captions.

`base` defines the contract; `captioners` builds the one that a configuration names. `server` needs no torch.
"""

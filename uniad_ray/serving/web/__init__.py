"""The pages and their scripts.

`pages` serves them.
"""

"""The composition expert: how much there is of each colour, in how many regions, and how it is spread.

`features` measures a label map, `spread` says how far measurements are from normal ones, `reasons` puts it in words.
"""

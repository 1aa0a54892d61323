"""Names, crops and features of segmented objects.

`clip_namer` and `names` name objects, `crops` cuts them out, `clip_features` and `features` describe them.
"""

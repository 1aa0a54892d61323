"""Names, crops and features of segmented objects."""

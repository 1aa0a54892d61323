"""The relations expert: counts, places and pairings of parts."""

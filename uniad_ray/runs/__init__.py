"""A scoring run at rest: plan, scores, maps, timings and reviews."""

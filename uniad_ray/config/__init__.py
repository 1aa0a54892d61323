"""Typed configuration: strict pydantic models, YAML profiles, overrides."""

"""Alarms of a night as data, and their delivery by webhook and e-mail."""

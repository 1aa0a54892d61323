"""Captions by a vision-language model: the engine, a server, or a table of stored captions."""

"""Captions by a vision-language model: a vLLM engine, a server, or a table of stored captions."""

"""Train pipeline: trains students on Ray Train."""

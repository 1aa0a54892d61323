"""Training of students on Ray Train."""

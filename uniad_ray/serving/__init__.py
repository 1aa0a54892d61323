"""Online scoring: a Ray Serve application with an HTTP API and web pages."""

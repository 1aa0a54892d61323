"""The fused scorer online: a Ray Serve application with an HTTP interface and a page."""

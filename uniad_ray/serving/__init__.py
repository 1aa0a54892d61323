"""The fused scorer online: a Ray Serve application with an HTTP interface and a page.

`command` starts it, `app` builds it for Ray Serve, `settings` configures it.
"""

"""The HTTP interface: operations, schemas, images of requests, problem documents.

`api` holds the operations; each of the others holds one part of a request or a response.
"""

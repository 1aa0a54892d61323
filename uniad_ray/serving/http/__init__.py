"""The HTTP interface: operations, schemas, images of requests, problem documents."""

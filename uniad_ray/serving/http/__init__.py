"""The HTTP API: operations, schemas, request images, problem documents."""

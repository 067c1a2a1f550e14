"""What a model says of itself in headers and small files: no weight is read, no torch loaded."""

"""The lowest layer: values, keys, files, the cache. Light, and imports nothing above it."""

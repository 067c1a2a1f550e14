"""Where models and files come from."""

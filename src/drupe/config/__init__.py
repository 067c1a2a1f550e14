"""What a user writes: read, upgraded from older words, checked all at once."""

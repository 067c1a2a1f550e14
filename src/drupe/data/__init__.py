"""Rows to text, text to tokens."""

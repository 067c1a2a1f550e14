"""Weights in 2, 4 or 8 bits: which values there are, and which of them stands for a weight."""

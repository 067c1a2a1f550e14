"""Tuning a checkpoint, and merging what was learnt."""

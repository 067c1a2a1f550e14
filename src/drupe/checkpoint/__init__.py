"""Hugging Face folders: loading, and their tensors one by one."""

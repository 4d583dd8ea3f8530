"""Attention heads whose bigrams are known."""

"""Embeddings that exist already: found, read, and scored, without a picture."""

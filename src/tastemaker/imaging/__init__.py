"""Bytes to pixels to model input: shards, decoding, preprocessing, technical signals."""

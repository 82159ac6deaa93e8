"""Selections of a score table: which rows are meant, and where their originals, lists or stars go."""

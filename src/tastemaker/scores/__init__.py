"""The score table: its columns, its files, and queries over it."""

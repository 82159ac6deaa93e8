"""Pages to look at: the gallery of a run, and the report of a score table."""

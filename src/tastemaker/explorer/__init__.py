"""Pages to look at: the gallery of a run."""

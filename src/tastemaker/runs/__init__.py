"""Runs: what makes rows, goes on where it stopped, and says what it came to."""

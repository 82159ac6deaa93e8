"""``python -m tastemaker``."""

from tastemaker.cli import main

main()

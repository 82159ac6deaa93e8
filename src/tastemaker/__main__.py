"""The command line, also as ``python -m tastemaker``."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C while it is still being loaded ends it with 130, and without a traceback."""
    try:
        from tastemaker.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()

"""Decides nothing: `python -m vibeserve` is the command line."""

from vibeserve.cli import main

if __name__ == "__main__":
    main()

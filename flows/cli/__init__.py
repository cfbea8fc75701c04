"""The command line: `kaobako --help`."""

from flows.cli.app import main

__all__ = ["main"]

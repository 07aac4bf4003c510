"""The command line; `main` is the entry of `edge-registry`."""

from app.cli.command import main

__all__ = ["main"]

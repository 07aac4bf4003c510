"""The option that every command shares, and the configuration read with it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app import configuration
from app.cli import output
from app.configuration import Configuration

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The YAML file to read; EDGE_REGISTRY_CONFIG names it as well. Distribution's own is understood.",
        show_default=False,
    ),
]


def read(file: Path | None, given: Mapping[str, Mapping[str, Any]] | None = None) -> Configuration:
    """Every source in order, with this process's environment; prints the warnings. Raises StartError."""
    found = configuration.load(file, os.environ, given or {})
    for warning in found.warnings:
        output.warn(warning)
    return found

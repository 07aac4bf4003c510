"""The options that commands share, and the configuration read with one of them."""

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

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

ImageLists = Annotated[
    list[str] | None,
    typer.Option(
        "--file", metavar="LIST", help="A file of images, one a line; `#` begins a comment; - is standard input."
    ),
]


def read(file: Path | None, given: Mapping[str, Mapping[str, Any]] | None = None) -> Configuration:
    """Every source in order, with this process's environment; prints the warnings. Raises StartError."""
    found = configuration.load(file, os.environ, given or {})
    for warning in found.warnings:
        output.warn(warning)
    return found

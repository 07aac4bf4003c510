"""`edge-registry config`: what is configured, and where it came from."""

import json
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app import configuration
from app.cli import options, output
from app.errors import StartError

commands = typer.Typer(help="Looks at the configuration.")


@commands.callback()
def _group() -> None:
    """Looks at the configuration."""


@commands.command("show")
def show(
    config: options.ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: key to value and origin.")] = False,
) -> None:
    """Prints each setting: its key, its value and where that came from.

    Origins are default, a file, a variable of the environment, or an option. Secrets are printed as ****. The exit
    status is 2 where the server would not start with this configuration.
    """
    found = options.read(config)
    settings, refusal = found.settings, None
    try:
        settings = configuration.resolve(settings)
    except StartError as error:
        refusal = error
    rows = {key: (_plain(value), found.origins[key]) for key, value in configuration.values(settings).items()}
    if as_json:
        output.say(
            json.dumps({key: {"value": value, "origin": origin} for key, (value, origin) in rows.items()}, indent=2)
        )
    else:
        _print(rows)
    if refusal is not None:
        raise refusal


def _print(rows: dict[str, tuple[Any, str]]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        for key, (value, origin) in rows.items():
            output.say(f"{key} = {json.dumps(value)}  # {origin}")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("key", "value", "from"):
        table.add_column(title, overflow="fold")
    for key, (value, origin) in rows.items():
        table.add_row(key, Text(json.dumps(value)), Text(origin, style="dim" if origin == "default" else "green"))
    console.print(table)


def _plain(value: Any) -> Any:
    """A value fit for JSON and for other people's eyes: secrets hidden, also those inside a URL."""
    if isinstance(value, SecretStr):
        return "****"
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    return re.sub(r"//[^/@\s]+@", "//****@", value) if isinstance(value, str) else value

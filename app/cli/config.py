"""`edge-registry config`: what is configured, and where it came from."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app import configuration, fields
from app.cli import options, output
from app.errors import StartError
from app.mistakes import redacted
from app.settings import Settings

commands = typer.Typer(help="Looks at the configuration.")


@dataclass(frozen=True, slots=True)
class Row:
    """One setting: `value` is fit for JSON and for other people's eyes, `text` is how people write it."""

    key: str
    value: Any
    text: str
    origin: str


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
    rows = list(_rows(settings, found.origins))
    if as_json:
        output.say_json({row.key: {"value": row.value, "origin": row.origin} for row in rows})
    else:
        _print(rows)
    if refusal is not None:
        raise refusal


def _rows(settings: Settings, origins: dict[str, str]) -> Iterable[Row]:
    """Every setting; what stands in a list of mappings comes from where the list does, unless it is a default."""
    for leaf in fields.leaves(settings):
        whole = leaf.key == leaf.root
        origin = origins[leaf.root] if whole or leaf.given else "default"
        value = _plain(leaf.value)
        yield Row(leaf.key, value, json.dumps(_plain(fields.readable(leaf.value, leaf.field))), origin)


def _print(rows: list[Row]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        for row in rows:
            output.say(f"{row.key} = {row.text}  # {row.origin}")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("key", "value", "from"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(row.key, Text(row.text), Text(row.origin, style="dim" if row.origin == "default" else "green"))
    console.print(table)


def _plain(value: Any) -> Any:
    """A value fit for JSON and for other people's eyes: secrets hidden, also those inside a URL."""
    if isinstance(value, SecretStr):
        return "****"
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, Path):
        return str(value)
    return redacted(value) if isinstance(value, str) else value

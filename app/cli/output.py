"""How the command line speaks: results on stdout, everything else on stderr, each error one line."""

import json
import sys
from typing import Any

import typer

NAME = "edge-registry"


class Failure(Exception):
    """A command that was understood and could not be carried out; the message is one line, the exit status 1."""


def say(line: str = "") -> None:
    """A line of the result."""
    print(line)


def say_json(document: Any) -> None:
    """The whole result as one JSON document."""
    say(json.dumps(document, indent=2))


def note(line: str) -> None:
    """A line for the person at the terminal that is no part of the result."""
    print(line, file=sys.stderr)


def warn(line: str) -> None:
    """Something that was understood and has no effect, or is dangerous."""
    print(f"{NAME}: warning: {line}", file=sys.stderr)


def complain(message: str) -> None:
    """An error; a message of several lines names one mistake in each."""
    for line in message.splitlines():
        print(f"{NAME}: {line}", file=sys.stderr)


def end(good: bool) -> None:
    """The last thing of a command that has said what went wrong: its exit status is 1 where anything did."""
    if not good:
        raise typer.Exit(1)

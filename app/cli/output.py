"""How the command line speaks: results on stdout, everything else on stderr, each error one line."""

import sys

NAME = "edge-registry"


class Failure(Exception):
    """A command that was understood and could not be carried out; the message is one line, the exit status 1."""


def say(line: str = "") -> None:
    """A line of the result."""
    print(line)


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

"""`edge-registry user`: the people in the htpasswd file."""

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from app import configuration
from app.cli import options, output
from app.errors import StartError

commands = typer.Typer(
    help="""Adds, removes and lists the users of the registry.

    They live in an htpasswd file with bcrypt hashes: the one named by auth.htpasswd, else registry-users in the current
    folder, which serve finds by itself. A running server notices changes."""
)

Users = Annotated[
    Path | None,
    typer.Option(
        "--file", metavar="FILE", help="The htpasswd file; without it, the one that is configured.", show_default=False
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.", show_default=False)]


@commands.command("add")
def add(
    name: Name,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input instead of asking for it.")
    ] = False,
    file: Users = None,
    config: options.ConfigFile = None,
) -> None:
    """Adds a user, or gives one a new password.

    Asks for the password twice on a terminal; in a script, pipe it in with --password-stdin. It is 72 bytes
    long at most.
    """
    path, found = _file(file, config)
    password = _read_password() if password_stdin else _ask_password()
    from app.auth import htpasswd

    new = htpasswd.add(path, name, password)
    output.note(f"{'added' if new else 'changed the password of'} {name} in {path}")
    if not found and path != configuration.DEFAULT_USERS:
        output.note(f"to use the file, set auth.htpasswd: {path} ({configuration.variable('auth.htpasswd')})")
    elif not found:
        output.note("`edge-registry serve` in this folder uses it from its next start")


@commands.command("remove")
def remove(name: Name, file: Users = None, config: options.ConfigFile = None) -> None:
    """Removes a user, who can do nothing that is not open to everybody from then on."""
    path, _ = _file(file, config)
    from app.auth import htpasswd

    htpasswd.remove(path, name)
    output.note(f"removed {name} from {path}")


@commands.command("list")
def show(file: Users = None, config: options.ConfigFile = None) -> None:
    """Prints the names of the users, one a line."""
    path, found = _file(file, config)
    if file is None and not found:
        output.note("there are no users; add one with `edge-registry user add NAME`")
        return
    from app.auth import htpasswd

    for name in htpasswd.users(path):
        output.say(name)


def _file(given: Path | None, config: Path | None) -> tuple[Path, bool]:
    """The htpasswd file to work on, and whether the server would use it. Raises StartError."""
    configured = options.read(config).settings.auth.htpasswd
    path = given or configured or configuration.DEFAULT_USERS
    return path, configured is not None and configured.absolute() == path.absolute()


def _read_password() -> str:
    try:
        return sys.stdin.buffer.read().decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise StartError("the password on standard input is not UTF-8 text") from None


def _ask_password() -> str:
    if not sys.stdin.isatty():
        raise StartError("there is no terminal to ask for the password; pipe it in with --password-stdin")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise StartError("the two passwords differ")
    return password

"""`edge-registry user`: the people in the htpasswd file."""

import getpass
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from app import configuration
from app.auth.access import Access, Action
from app.auth.caller import Caller
from app.cli import options, output
from app.cli.reading import password_on_stdin
from app.errors import StartError
from app.oci.errors import NameInvalid
from app.oci.names import MAX_LENGTH, parse_name

_VERBS: Final = {
    Action.PULL: "pull from",
    Action.PUSH: "push to",
    Action.DELETE: "delete from",
    Action.CATALOG: "list",
    Action.ADMIN: "administer",
}

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
    password = password_on_stdin() if password_stdin else _ask_password()
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


@commands.command("check")
def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A user, or `anonymous` for callers without credentials.")
    ],
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="pull, push, delete or catalog.")],
    repository: Annotated[
        str | None,
        typer.Argument(
            metavar="REPOSITORY",
            help="A repository; what is cached begins with its upstream's name. Nothing for catalog.",
            show_default=False,
        ),
    ] = None,
    config: options.ConfigFile = None,
) -> None:
    """Says whether a user may do something with a repository, and what lets them.

    The answer is that of a server with this configuration; whether there is such a user, or such a repository, makes no
    difference. The exit status is 1 where they may not.
    """
    name_of = _repository(action, repository)
    settings = configuration.resolve(options.read(config).settings).auth
    access = Access(
        realm=settings.realm, users=settings.htpasswd is not None, anonymous=settings.anonymous, rules=settings.rules
    )
    caller = Caller(None if name == "anonymous" else name)
    grounds = access.grounds(caller, action, name_of)
    what = f"{_VERBS[action]} {name_of or 'the catalog'}"
    if grounds is None:
        output.say(f"{name} may not {what}: nothing grants it")
        raise typer.Exit(1)
    output.say(f"{name} may {what}: {grounds}")


def _file(given: Path | None, config: Path | None) -> tuple[Path, bool]:
    """The htpasswd file to work on, and whether the server would use it. Raises StartError."""
    configured = options.read(config).settings.auth.htpasswd
    path = given or configured or configuration.DEFAULT_USERS
    return path, configured is not None and configured.absolute() == path.absolute()


def _repository(action: Action, text: str | None) -> str | None:
    """The repository that the action is about; None for the catalog. Raises StartError."""
    if action is Action.CATALOG:
        if text is not None:
            raise StartError("the catalog is of all repositories: name none")
        return None
    if text is None:
        raise StartError(f"name the repository to {_VERBS[action]}")
    try:
        return parse_name(text)
    except NameInvalid:
        raise StartError(f"{text[:MAX_LENGTH]!r} is no name of a repository") from None


def _ask_password() -> str:
    if not sys.stdin.isatty():
        raise StartError("there is no terminal to ask for the password; pipe it in with --password-stdin")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise StartError("the two passwords differ")
    return password

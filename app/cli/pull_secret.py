"""`edge-registry pull-secret`: the Secret with which pods pull from the registry."""

from typing import Annotated

import typer

from app.cli import output
from app.cli.reading import password_on_stdin
from app.errors import StartError


def pull_secret(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The Secret's name.", show_default=False)],
    server: Annotated[
        list[str],
        typer.Option(
            metavar="HOST:PORT", help="The registry as image names begin; repeat it for each.", show_default=False
        ),
    ],
    user: Annotated[str, typer.Option(metavar="NAME", help="The registry's user.", show_default=False)],
    namespace: Annotated[str | None, typer.Option(metavar="NAME", help="Where the Secret goes.")] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    how: Annotated[
        bool, typer.Option("--how", help="Print the lines that make and use it instead; reads no password.")
    ] = False,
) -> None:
    """Prints the pull secret for one or more names of the registry, for `kubectl apply -f -`.

    One Secret serves all the names under which nodes reach the registry: an address, `localhost` with a node port, the
    name inside the cluster. Pods name it in imagePullSecrets, or their service account does.
    """
    from app.nodes.pull_secret import PullSecret

    secret = PullSecret(name, server, user, namespace)
    if how:
        for line in secret.commands():
            output.say(line)
        return
    if not password_stdin:
        raise StartError("pipe the password in with --password-stdin, or see --how")
    print(secret.manifest(password_on_stdin()), end="")

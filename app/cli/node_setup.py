"""`edge-registry node-setup`: writes what the clients of a node read about the registry, and takes it back."""

import os
import signal
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli import output
from app.errors import StartError

if TYPE_CHECKING:
    from app.nodes.settings import NodeSettings
    from app.nodes.setup import NodeSetup, Outcome

commands = typer.Typer(
    help="""Writes what the clients of a node read about the registry: certificates, mirrors, names of hosts.

    For a DaemonSet, which sees the node's root in a folder, and for people. It writes files of its own, and lines between
    its own markers; it refuses and reports what others wrote, restarts nothing, and keeps a record on the node, so that
    remove takes away exactly what was made."""
)

NodeRoot = Annotated[
    Path, typer.Option("--root", metavar="FOLDER", help="Where the root of the node's file system is.", file_okay=False)
]
Document = Annotated[
    Path,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The YAML document of the node set-up: hosts, scheme, ca or ca_file, mirror, addresses, clients, state.",
        show_default=False,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would change, as a diff, and change nothing.")]


@commands.command("apply")
def apply(config: Document, root: NodeRoot = Path("/"), dry_run: DryRun = False) -> None:
    """Brings the node to what the document says, once.

    The exit status is 1 where something was left out, because others wrote it or a name has no address yet.
    """
    setup, settings = _setup(root), _load(config)
    outcome = setup.preview(settings) if dry_run else setup.apply(settings)
    _finish(outcome, dry_run=dry_run)


@commands.command("watch")
def watch(
    config: Document,
    root: NodeRoot = Path("/"),
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.1)] = 10.0,
    ready_file: Annotated[
        Path | None,
        typer.Option(help="A file that is there while everything is in place, for a readiness probe.", metavar="FILE"),
    ] = None,
) -> None:
    """Brings the node to what the document says, and keeps it there until it is told to end.

    It follows changes of the document, of the authority, of the addresses that names have, and of the node. What it made
    stays when it ends; `state: absent` in the document, or remove, takes it away.
    """
    from app.nodes.root import Root
    from app.nodes.watching import Watch

    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watch = Watch(Root(_existing(root)), config, os.environ, _tell, ready_file)
    if not watch.run(stop, interval):
        raise output.Failure("a file of the node was replaced behind its mount; the next start sees the new one")


@commands.command("remove")
def remove(root: NodeRoot = Path("/"), dry_run: DryRun = False) -> None:
    """Takes away exactly what apply and watch made, whatever the document said then."""
    setup = _setup(root)
    _finish(setup.preview_removal() if dry_run else setup.remove(), dry_run=dry_run)


@commands.command("status")
def status(config: Document, root: NodeRoot = Path("/")) -> None:
    """Says what is not as the document wants it; the exit status is 1 where anything is not."""
    outcome = _setup(root).preview(_load(config))
    for change in outcome.changes:
        output.say(f"{'not there' if change.before is None else 'differs'}: {change.path}")
    _tell_rest(outcome)
    if outcome.changes or not outcome.clean:
        raise typer.Exit(1)
    output.say("everything is in place")


def _load(config: Path) -> "NodeSettings":
    from app.nodes import settings

    return settings.load(config)


def _setup(root: Path) -> "NodeSetup":
    from app.nodes.root import Root
    from app.nodes.setup import NodeSetup

    return NodeSetup(Root(_existing(root)), os.environ)


def _existing(root: Path) -> Path:
    if not root.is_dir():
        raise StartError(f"{root} is no folder")
    return root


def _finish(outcome: "Outcome", *, dry_run: bool) -> None:
    if dry_run:
        for change in outcome.changes:
            print(change.diff(), end="")
    else:
        _tell_changes(outcome)
    _tell_rest(outcome)
    if not outcome.clean:
        raise typer.Exit(1)


def _tell(what: "Outcome | str") -> None:
    """One round of watch, on standard error as every log."""
    if isinstance(what, str):
        output.complain(what)
        return
    _tell_changes(what)
    _tell_rest(what)


def _tell_changes(outcome: "Outcome") -> None:
    for change in outcome.changes:
        verb = "removed" if change.after is None else "wrote" if change.before is None else "changed"
        output.note(f"{verb} {change.path}")


def _tell_rest(outcome: "Outcome") -> None:
    for path, reason in outcome.refused.items():
        output.complain(f"left {path} alone: {reason}")
    for note in outcome.notes:
        output.note(note.rstrip("\n"))
    for command in dict.fromkeys(outcome.restart):
        output.note(f"in force once you run: {command}")

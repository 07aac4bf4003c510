"""`edge-registry serve`: starts the server and says what to paste next."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.text import Text

from app.cli import options
from app.configuration import is_loopback, resolve
from app.settings import Settings

Line = tuple[str, str]
"""What a line is (`title`, `text`, `command`, `warning`) and what it says."""

_STYLES = {"title": "bold green", "text": "", "command": "cyan", "warning": "bold yellow"}


def serve(
    config: options.ConfigFile = None,
    host: Annotated[
        str | None,
        typer.Option(
            help="Address to listen on. Without it: every address with users, 127.0.0.1 without.", metavar="ADDRESS"
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 5045 without it, 0 for a free one.")] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Keep the registry in this folder, whatever else is configured.", metavar="FOLDER"),
    ] = None,
    insecure_anonymous: Annotated[
        bool, typer.Option("--insecure-anonymous", help="Let everybody push, pull and delete without a password.")
    ] = False,
) -> None:
    """Starts the registry.

    Without any configuration it listens on http://127.0.0.1:5045 and keeps everything in the folder registry-data. Add
    a user (edge-registry user add NAME) and it listens on every address and asks for a password. Give it a bucket
    (storage.s3.endpoint; edge-registry setup bucket makes one) and any number of replicas serve the same content.

    SIGTERM and Ctrl-C let running requests end first.
    """
    given: dict[str, dict[str, object]] = {}
    if host is not None:
        given["--host"] = {"http.host": host}
    if port is not None:
        given["--port"] = {"http.port": port}
    if root is not None:
        given["--root"] = {"storage.driver": "filesystem", "storage.filesystem.root": root}
    if insecure_anonymous:
        given["--insecure-anonymous"] = {"auth.anonymous": "push"}
    settings = resolve(options.read(config, given).settings)
    from app.server import run  # the other commands need not wait for the web framework

    run(settings, announce=announcer(settings))


def announcer(settings: Settings) -> Callable[[str], None]:
    """What the server calls with its URL once it listens: prints `lines` on stderr, in colours on a terminal."""

    def announce(url: str) -> None:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        for kind, text in lines(url, settings):
            if console.is_terminal:
                console.print(Text(text, style=_STYLES[kind]))
            else:
                print(text, file=sys.stderr)
        sys.stderr.flush()

    return announce


def lines(url: str, settings: Settings) -> Iterator[Line]:
    """The words of the announcement, for a server that listens at `url`."""
    base = (settings.http.public_url or _reachable(url)).rstrip("/")
    name = urlsplit(base).netloc
    yield "title", f"Edge Registry listens on {url}"
    yield "text", f"  data  {_place(settings)}"
    yield "text", f"  API   {base}/docs"
    yield "text", ""
    if settings.auth.htpasswd is not None:
        yield "command", f"  docker login {name}"
    yield "command", f"  docker tag alpine {name}/library/alpine"
    yield "command", f"  docker push {name}/library/alpine"
    yield "command", f"  docker pull {name}/library/alpine"
    yield "text", ""
    yield from _cautions(url, settings)


def _cautions(url: str, settings: Settings) -> Iterator[Line]:
    open_to = "everybody on this machine" if is_loopback(settings.http.host or "") else "everybody who can reach it"
    if settings.auth.anonymous == "push":
        yield (
            "warning",
            f"No password is asked: {open_to} may push, pull and delete. `edge-registry user add NAME` ends that.",
        )
    elif settings.auth.anonymous == "pull":
        yield "text", f"Without a password {open_to} may pull."
    elif settings.auth.htpasswd is None:
        yield (
            "warning",
            "There are no users and nobody may come without one: add one with `edge-registry user add NAME`.",
        )
    plain = urlsplit(settings.http.public_url or url).scheme == "http"
    if plain and not is_loopback(settings.http.host or ""):
        yield "text", "Docker on other machines wants TLS: see `edge-registry setup certs`."
    if settings.storage.driver == "memory":
        yield "warning", "Everything is in memory and gone when the server stops."


def _reachable(url: str) -> str:
    """The URL as a client on this machine can use it: Docker takes plain HTTP from localhost."""
    parts = urlsplit(url)
    if parts.hostname in ("0.0.0.0", "::", "127.0.0.1", "::1"):  # noqa: S104 (compared, not bound)
        return f"{parts.scheme}://localhost:{parts.port}" if parts.port else f"{parts.scheme}://localhost"
    return url


def _place(settings: Settings) -> str:
    store = settings.storage
    if store.driver == "s3":
        return f"the bucket {store.s3.bucket} at {store.s3.endpoint or 'AWS'}"
    if store.driver == "memory":
        return "memory"
    return f"the folder {store.filesystem.root.absolute()}"

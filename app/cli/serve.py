"""`edge-registry serve`: starts the server and says what to paste next."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.console import Console
from rich.text import Text

from app.cli import options
from app.configuration import is_loopback, resolve
from app.settings import Listener, Settings

Line = tuple[str, str]
"""What a line is (`title`, `text`, `command`, `warning`) and what it says."""

Door = tuple[str, Listener]
"""A listener and its URL."""

_STYLES = {"title": "bold green", "text": "", "command": "cyan", "warning": "bold yellow"}


_Host = Annotated[
    str | None,
    typer.Option(
        help="Address to listen on. Without it: every address with users, 127.0.0.1 without.", metavar="ADDRESS"
    ),
]
_Port = Annotated[int | None, typer.Option(help="Port to listen on; 5045 without it, 0 for a free one.")]
_Root = Annotated[
    Path | None,
    typer.Option(help="Keep the registry in this folder, whatever else is configured.", metavar="FOLDER"),
]
_Watch = Annotated[
    Path | None,
    typer.Option(help="Import every archive of images that appears in this folder.", metavar="FOLDER"),
]
_AirGapped = Annotated[bool, typer.Option("--air-gapped", help="Never dial anybody but the store: serve what is here.")]
_InsecureAnonymous = Annotated[
    bool, typer.Option("--insecure-anonymous", help="Let everybody push, pull and delete without a password.")
]


def serve(
    config: options.ConfigFile = None,
    host: _Host = None,
    port: _Port = None,
    root: _Root = None,
    watch: _Watch = None,
    air_gapped: _AirGapped = False,
    insecure_anonymous: _InsecureAnonymous = False,
) -> None:
    """Starts the registry.

    Without any configuration it listens on http://127.0.0.1:5045 and keeps everything in the folder registry-data. Add
    a user (edge-registry user add NAME) and it listens on every address and asks for a password. Give it a bucket
    (storage.s3.endpoint; edge-registry setup bucket makes one) and any number of replicas serve the same content.

    With --air-gapped no upstream is contacted, even where some are configured: what was cached or imported of them is
    served under their names, as if it had just been checked, and what is not here is a 404 at once. It refuses to start
    where the keys of the store would have to be asked of another service.

    SIGTERM and Ctrl-C let running requests end first.
    """
    given = _given(host, port, root, watch, air_gapped, insecure_anonymous)
    settings = resolve(options.read(config, given).settings)
    from app.server import run  # the other commands need not wait for the web framework

    run(settings, announce=announcer(settings))


def _given(
    host: str | None, port: int | None, root: Path | None, watch: Path | None, air_gapped: bool, open_to_all: bool
) -> dict[str, dict[str, Any]]:
    """Each option that was used -> what it says of the settings."""
    said: dict[str, dict[str, Any] | None] = {
        "--host": {"http.host": host} if host is not None else None,
        "--port": {"http.port": port} if port is not None else None,
        "--root": {"storage.driver": "filesystem", "storage.filesystem.root": root} if root is not None else None,
        "--watch": {"transfer.watch": watch} if watch is not None else None,
        "--air-gapped": {"proxy.air_gapped": True} if air_gapped else None,
        "--insecure-anonymous": {"auth.anonymous": "push"} if open_to_all else None,
    }
    return {option: keys for option, keys in said.items() if keys is not None}


def announcer(settings: Settings) -> Callable[[list[str]], None]:
    """What the server calls with the URLs of its listeners once it listens: prints `lines` on stderr, in colours on a
    terminal."""

    def announce(urls: list[str]) -> None:
        console = Console(stderr=True, highlight=False, soft_wrap=True)
        for kind, text in lines(urls, settings):
            if console.is_terminal:
                console.print(Text(text, style=_STYLES[kind]))
            else:
                print(text, file=sys.stderr)
        sys.stderr.flush()

    return announce


def lines(urls: Sequence[str], settings: Settings) -> Iterator[Line]:
    """The words of the announcement, for a server whose listeners are at `urls`, in their order."""
    doors = list(zip(urls, settings.listening(), strict=True))
    # People paste what works: a push where pushes are taken, by somebody who may; a pull where anybody gets most.
    push = next((door for door in doors if not door[1].read_only and _admits_pushes(door[1], settings)), None)
    base = _base((push or doors[0])[0], settings)
    yield from _titles(doors, settings)
    yield "text", f"  data  {_place(settings)}"
    yield "text", f"  API   {base}/docs"
    if settings.proxy.upstreams:
        never = " (air-gapped: never asked)" if settings.proxy.air_gapped else ""
        yield "text", f"  upstreams  {', '.join(_upstreams(settings))}{never}"
    if settings.transfer.watch is not None:
        yield "text", f"  imports  what appears in {settings.transfer.watch.absolute()}"
    yield "text", ""
    yield from _commands(base, push[1] if push else None, settings)
    yield "text", ""
    for url, listener in doors:
        place = f" at {url}" if len(doors) > 1 else ""
        yield from _cautions(url, place, listener, settings)
    if settings.storage.driver == "memory":
        yield "warning", "Everything is in memory and gone when the server stops."


def _upstreams(settings: Settings) -> Iterator[str]:
    for upstream in settings.proxy.upstreams:
        plain = settings.proxy.default_upstream in (upstream.name, *upstream.aliases)
        yield f"{upstream.name} (also for plain names)" if plain else upstream.name


def _titles(doors: list[Door], settings: Settings) -> Iterator[Line]:
    if len(doors) == 1 and not settings.listeners:
        yield "title", f"Edge Registry listens on {doors[0][0]}"
        return
    yield "title", "Edge Registry listens on"
    width = max(len(url) for url, _ in doors)
    for url, listener in doors:
        yield "title", f"  {url:<{width}}  {_nature(listener, settings)}"


def _nature(listener: Listener, settings: Settings) -> str:
    """What a listener is, in a few words: `caching docker.io, read-only, no password`."""
    words = [f"caching {listener.default_upstream}"] if listener.default_upstream else []
    if settings.proxy.upstreams and not words:
        words = ["caching"]
    words.append("read-only" if listener.read_only else "read and write")
    if listener.anonymous == "push" or (listener.anonymous == "pull" and (listener.open_door or listener.read_only)):
        words.append("no password")
    elif listener.anonymous == "pull":
        words.append("password to push")
    else:
        words.append("password")
    return ", ".join(words)


def _admits_pushes(listener: Listener, settings: Settings) -> bool:
    """Whether there is anybody who may push here."""
    return listener.anonymous == "push" or (settings.auth.htpasswd is not None and not listener.open_door)


def _commands(base: str, push: Listener | None, settings: Settings) -> Iterator[Line]:
    """What to paste: a login, a push and a pull where pushes are taken, else a pull from an upstream."""
    name = urlsplit(base).netloc
    if push is not None:
        if settings.auth.htpasswd is not None and not push.open_door:
            yield "command", f"  docker login {name}"
        yield "command", f"  docker tag alpine {name}/library/alpine"
        yield "command", f"  docker push {name}/library/alpine"
    if push is not None or not settings.proxy.upstreams:
        yield "command", f"  docker pull {name}/library/alpine"
    if settings.proxy.upstreams:
        first = settings.proxy.upstreams[0].name
        path = "library/alpine" if first == "docker.io" else "PROJECT/IMAGE"
        yield "command", f"  docker pull {name}/{first}/{path}"


def _cautions(url: str, place: str, listener: Listener, settings: Settings) -> Iterator[Line]:
    """What is worth knowing about one listener; `place` names it where there are more."""
    open_to = "everybody on this machine" if is_loopback(listener.host) else "everybody who can reach it"
    if listener.anonymous == "push" and listener.read_only:
        yield "text", f"Without a password{place} {open_to} may pull."
    elif listener.anonymous == "push":
        yield (
            "warning",
            f"No password is asked{place}: {open_to} may push, pull and delete. `edge-registry user add NAME` "
            f"{'and another `anonymous` end' if listener.open_door else 'ends'} that.",
        )
    elif listener.anonymous == "pull":
        yield "text", f"Without a password{place} {open_to} may pull."
    elif settings.auth.htpasswd is None:
        yield (
            "warning",
            f"There are no users and nobody may come{place} without one: add one with `edge-registry user add NAME`.",
        )
    plain = urlsplit(settings.http.public_url or url).scheme == "http"
    if plain and not is_loopback(listener.host):
        yield "text", f"Docker on other machines wants TLS{place}: see `edge-registry setup certs`."


def _base(url: str, settings: Settings) -> str:
    return (settings.http.public_url or _reachable(url)).rstrip("/")


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

"""`edge-registry node-config`: what to put where on a machine that pulls from the registry."""

import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from app.cli import options, output
from app.errors import StartError

if TYPE_CHECKING:
    from app.nodes.files import ClientFiles
    from app.nodes.site import Site
    from app.settings import Settings

_GUARD = """put() { # PATH MODE: writes standard input there, unless somebody else's file is in its place
  if [ -s "$ROOT$1" ] && ! head -n 1 "$ROOT$1" | grep -q '^# \\(Written by\\|begin\\) edge-registry'; then
    cat >/dev/null; echo "left $1 alone: it was not written by edge-registry" >&2; failed=1; return
  fi
  mkdir -p "$(dirname "$ROOT$1")" && cat >"$ROOT$1.new" && chmod "$2" "$ROOT$1.new" && mv "$ROOT$1.new" "$ROOT$1"
}"""


class For(StrEnum):
    """Clients that can be told about the registry."""

    CONTAINERD = "containerd"
    K3S = "k3s"
    DOCKER = "docker"
    PODMAN = "podman"
    CRIO = "crio"
    BUILDKIT = "buildkit"


_Clients = Annotated[list[For], typer.Option("--for", help="The client; repeat it for each.", show_default=False)]
_Hosts = Annotated[
    list[str] | None,
    typer.Option(
        metavar="HOST:PORT", help="The registry as image names begin; without it, http.public_url. Repeat it."
    ),
]
_Authority = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The authority to trust; without it, the one in http.tls.certificate."),
]
_PlainHttp = Annotated[bool, typer.Option("--plain-http", help="The registry speaks no TLS.")]
_Mirrors = Annotated[
    list[str] | None,
    typer.Option(metavar="REGISTRY", help="An upstream, or '*', to pull through this registry. Repeat it."),
]
_MirrorUrl = Annotated[str | None, typer.Option(metavar="URL", help="Where the mirror is; without it, the first host.")]
_Addresses = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=IP", help="An entry for the node's hosts file. Repeat it."),
]
_DialTimeout = Annotated[float, typer.Option(help="Seconds in which the registry must be reached.", min=0.1)]
_Write = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write the files below a folder instead of printing them.")
]
_AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a client, in a list.")]


def node_config(  # noqa: PLR0913 (its options)
    client: _Clients,
    host: _Hosts = None,
    ca: _Authority = None,
    plain_http: _PlainHttp = False,
    mirror: _Mirrors = None,
    mirror_url: _MirrorUrl = None,
    address: _Addresses = None,
    dial_timeout: _DialTimeout = 2.0,
    write: _Write = None,
    as_json: _AsJson = False,
    config: options.ConfigFile = None,
) -> None:
    """Prints exactly what to put where, so that a machine trusts the registry and pulls through it.

    What is printed is a script of `sh` that can be read, or run on the machine as root: it leaves alone what others
    wrote. Lines that begin with # say what must be restarted and what only people should edit.
    """
    site = _site(
        options.read(config).settings, host or [], ca, plain_http, mirror or [], mirror_url, address or [], dial_timeout
    )
    found = [*(_configure(site, one) for one in dict.fromkeys(client)), *_entries(site)]
    if as_json:
        output.say_json([_plain(one) for one in found])
    elif write is not None:
        _write(write, found)
    else:
        for line in _script(found):
            output.say(line)


def _site(
    settings: "Settings",
    hosts: list[str],
    ca: Path | None,
    plain_http: bool,
    mirrors: list[str],
    mirror_url: str | None,
    entries: list[str],
    dial_timeout: float,
) -> "Site":
    """The site of the options, and of the server's configuration where they say nothing. Raises StartError."""
    from app.nodes import site as words

    public = urlsplit(settings.http.public_url or "")
    names = hosts or ([public.netloc] if public.netloc else [])
    if not names:
        raise StartError("name the registry with --host, such as --host 192.0.2.7:5045, or set http.public_url")
    plain = plain_http or (not hosts and public.scheme == "http")
    pairs = [entry.partition("=") for entry in entries]
    return words.Site(
        hosts=tuple(dict.fromkeys(words.parse_host(name) for name in names)),
        scheme="http" if plain else "https",
        ca=None if plain and not (mirror_url or "").startswith("https:") else _authority(settings, ca),
        dial_timeout=dial_timeout,
        mirrors=tuple(words.parse_mirrored(name) for name in mirrors),
        mirror_url=words.parse_url(mirror_url) if mirror_url else None,
        upstreams=tuple(upstream.name for upstream in settings.proxy.upstreams),
        addresses={words.parse_name(name): words.parse_address(address) for name, _, address in pairs},
    )


def _authority(settings: "Settings", given: Path | None) -> str | None:
    """The PEM to trust: what is named, else the authority behind the server's own certificate, where it is there."""
    from cryptography import x509

    from app.nodes.site import authority_in, parse_certificates

    path = given or settings.http.tls.certificate
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
        return parse_certificates(text) if given else authority_in(x509.load_pem_x509_certificates(text.encode()))
    except OSError as error:
        raise StartError(f"cannot read the authority {path}: {error.strerror}") from None
    except ValueError:
        raise StartError(f"{path} is no certificate in PEM form") from None


def _configure(site: "Site", client: For) -> "ClientFiles":
    from app.nodes import buildkit, containerd, crio, docker, k3s, podman

    if client is For.CONTAINERD:
        return containerd.configure(site)
    if client is For.K3S:
        return k3s.configure(site)
    if client is For.DOCKER:
        return docker.configure(site)
    if client is For.PODMAN:
        return podman.configure(site)
    return crio.configure(site) if client is For.CRIO else buildkit.configure(site)


def _entries(site: "Site") -> "list[ClientFiles]":
    from app.nodes.detection import host_entries

    return host_entries(site, named=bool(site.addresses))


def _plain(found: "ClientFiles") -> dict[str, Any]:
    files = [{"path": file.path, "mode": f"{file.mode:04o}", "text": file.text} for file in found.files]
    return {
        "for": found.client,
        "files": files,
        "merge": [{"path": edit.path, "text": edit.insert("")} for edit in found.edits],
        "by_hand": [{"path": one.path, "text": one.text, "why": one.why} for one in found.by_hand],
        "restart": list(found.restart),
        "notes": [*found.notes, *_standing_notes(found)],
    }


def _write(folder: Path, found: "Sequence[ClientFiles]") -> None:
    """Writes the files below a folder, for people who carry them on themselves. Raises Failure, OSError."""
    from app.nodes.changes import plan
    from app.nodes.record import Record
    from app.nodes.root import Root

    folder.mkdir(parents=True, exist_ok=True)
    root = Root(folder)
    changes = plan(root, Record(), found)
    if changes.refused:
        raise output.Failure("\n".join(f"left {path} alone: {why}" for path, why in changes.refused.items()))
    for change in changes.changes:
        root.make_folders(change.path)
        root.write(change.path, change.after or b"", change.mode)
        output.say(str(root.real(change.path)))
    for one in found:
        for line in _comments(one):
            output.note(line)


def _script(found: "Sequence[ClientFiles]") -> list[str]:
    lines = ["#!/bin/sh", "# Run as root; with ROOT set, everything goes below that folder.", *_GUARD.splitlines()]
    for one in found:
        lines += ["", f"# --- {one.client}"]
        for file in one.files:
            lines += _here(f"put {shlex.quote(file.path)} {file.mode:04o}", file.text)
        for edit in one.edits:
            lines += _merge(one.client, edit.path, edit.insert(""))
        lines += _comments(one)
    return [*lines, "", "exit ${failed:-0}"]


def _merge(client: str, path: str, text: str) -> list[str]:
    if client != "hosts":  # a file that hardly anybody else has; `node-setup` puts lines into one that has others
        return _here(f"put {shlex.quote(path)} 0644", text)
    without = "awk '/^# begin edge-registry/ {ours=1} !ours; /^# end edge-registry/ {ours=0}'"
    body = _here(f'{{ {without} "$ROOT{path}"; cat; }} >"$ROOT{path}.new"', text)
    return [*body, f'cat "$ROOT{path}.new" >"$ROOT{path}" && rm "$ROOT{path}.new"']


def _here(command: str, text: str) -> list[str]:
    return [f"{command} <<'END'", *text.rstrip("\n").split("\n"), "END"]


def _comments(found: "ClientFiles") -> list[str]:
    """What cannot be done by writing files, for people."""
    lines = []
    for one in found.by_hand:
        lines += [f"# {one.path}: {one.why}:", *(f"#   {line}".rstrip() for line in one.text.rstrip("\n").split("\n"))]
    lines += [f"# {note}" for note in (*found.notes, *_standing_notes(found))]
    restart = [f"# in force once you run: {command}" for command in found.restart]
    return lines + (restart or ["# in force at once: nothing needs a restart"])


def _standing_notes(found: "ClientFiles") -> list[str]:
    """What a machine that nobody looked at may need besides."""
    if found.client != "containerd":
        return []
    from app.nodes.lookup import of_any_node

    return [of_any_node()]

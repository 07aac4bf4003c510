"""containerd: a folder for each registry below `certs.d`, read at every pull."""

import json
from typing import Final

from app.nodes.files import MARK, ClientFiles, File, authority
from app.nodes.lookup import RESTART, Looking
from app.nodes.site import EVERYTHING, HUB, Site

DEFAULT: Final = "_default"


def configure(site: Site, looking: Looking | None = None) -> ClientFiles:
    """The folders of all hosts and mirrored registries."""
    found = looking or Looking()
    restart = (RESTART,) if found.missing else ()
    return ClientFiles("containerd", files=host_files(site, found.folder), restart=restart, notes=found.notes)


def host_files(site: Site, folder: str) -> tuple[File, ...]:
    """`hosts.toml`, and the authority before it, for each host and mirrored registry below `folder`."""
    files: list[File] = []
    for host, scheme in site.endpoints().items():
        files += _folder(site, f"{folder}/{host}", _own(site, host, scheme, f"{folder}/{host}"), scheme)
    scheme = site.mirror.partition(":")[0]
    for name in site.mirrored():
        place = f"{folder}/{DEFAULT if name == EVERYTHING else name}"
        files += _folder(site, place, _mirrored(site, name, place), scheme)
    return tuple(files)


def other_spelling(folder: str) -> str | None:
    """The folder `host_port_` that containerd prefers to `host:port`; None where there is no port."""
    parent, _, name = folder.rpartition("/")
    host, colon, port = name.rpartition(":")
    return f"{parent}/{host}_{port}_" if colon and not name.endswith("]") else None


def _own(site: Site, host: str, scheme: str, folder: str) -> str:
    url = _text(f"{scheme}://{host}")  # containerd 1.6 takes no file without a table of hosts
    lines = [f"server = {url}", "", f"[host.{url}]", 'capabilities = ["pull", "resolve", "push"]']
    return "\n".join([*lines, *_how(site, scheme, folder)]) + "\n"


def _mirrored(site: Site, name: str, folder: str) -> str:
    """The mirror first; containerd asks the registry itself where the mirror does not answer or does not have it."""
    server = "registry-1.docker.io" if name == HUB else name
    head = [] if name == EVERYTHING else [f"server = {_text(f'https://{server}')}", ""]
    lines = [f"[host.{_text(site.mirror)}]", '  capabilities = ["pull", "resolve"]']
    how = _how(site, site.mirror.partition(":")[0], folder)
    return "\n".join([*head, *lines, *(f"  {line}" for line in how)]) + "\n"


def _how(site: Site, scheme: str, folder: str) -> list[str]:
    ca = [f"ca = {_text(f'{folder}/ca.crt')}"] if site.ca and scheme == "https" else []
    return [*ca, f'dial_timeout = "{site.dial_timeout:g}s"']


def _folder(site: Site, folder: str, hosts: str, scheme: str) -> list[File]:
    ca = [authority(folder, site)] if site.ca and scheme == "https" else []
    return [*ca, File(f"{folder}/hosts.toml", f"{MARK}\n{hosts}")]


def _text(value: str) -> str:
    return json.dumps(value)  # for ASCII, a string of JSON is one of TOML

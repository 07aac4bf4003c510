"""Which clients a node has, and the files that each of them needs there."""

import fnmatch
import os
from collections.abc import Sequence

from app.nodes import containerd, crio, docker, hosts, k3s, lookup, podman
from app.nodes.files import ClientFiles, Foreign
from app.nodes.root import Root
from app.nodes.settings import Client
from app.nodes.site import Site

_SIGNS: dict[Client, tuple[str, ...]] = {
    "k3s": (k3s.FOLDER, "/var/lib/rancher/k3s"),
    "containerd": ("/etc/containerd", "/run/containerd/containerd.sock"),
    "docker": ("/etc/docker", "/run/docker.sock"),
    "crio": (crio.FOLDER,),
    "podman": ("/etc/containers",),
}


def found(root: Root) -> list[Client]:
    """The clients of which there is a sign on the node. CRI-O reads what podman reads."""
    clients = [client for client, signs in _SIGNS.items() if any(root.exists(sign) for sign in signs)]
    return [client for client in clients if client != "podman" or "crio" not in clients]


def configure(root: Root, site: Site, clients: Sequence[Client]) -> list[ClientFiles]:
    """What each of these clients needs on this node."""
    return [_configure(root, site, client) for client in dict.fromkeys(clients)]


def host_entries(site: Site, *, named: bool) -> list[ClientFiles]:
    """The entries of the node's hosts file; nothing where the site names none."""
    return [ClientFiles("hosts", edits=(hosts.edit(site.addresses),))] if named else []


def look(root: Root, release: tuple[int, int] | None = None) -> lookup.Looking:
    """Where the containerd of this node looks for registries; `release` is (2, 4) for 2.4, None where it is not known."""
    config = _text(root, lookup.CONFIG)
    imported = [text for path in _imported(root, config) if (text := _text(root, path)) is not None]
    return lookup.look(config, imported, release)


def _configure(root: Root, site: Site, client: Client) -> ClientFiles:
    if client == "containerd":
        return containerd.configure(site, look(root))
    if client == "k3s":
        return k3s.configure(site, live=root.exists(k3s.CERTS))
    if client == "docker":
        return docker.configure(site)
    return crio.configure(site) if client == "crio" else podman.configure(site)


def _imported(root: Root, config: str | None) -> list[str]:
    """The files that config.toml imports; a pattern may stand for the last part of a path."""
    paths: list[str] = []
    for pattern in lookup.imports(config):
        folder, _, name = os.path.normpath(os.path.join("/etc/containerd", pattern)).rpartition("/")
        real = root.real(folder)
        names = sorted(os.listdir(real)) if real.is_dir() else []
        paths += [f"{folder}/{one}" for one in fnmatch.filter(names, name)]
    return paths


def _text(root: Root, path: str) -> str | None:
    try:
        data = root.read(path)
    except Foreign:
        return None
    return None if data is None else data.decode(errors="replace")

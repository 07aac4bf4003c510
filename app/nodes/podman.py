"""podman, buildah, skopeo: the authority of each host below `certs.d`, and the mirrors in a file of their own."""

import json
from typing import Final

from app.nodes.files import MARK, ClientFiles, File, authority
from app.nodes.site import EVERYTHING, Site

CERTS: Final = "/etc/containers/certs.d"
REGISTRIES: Final = "/etc/containers/registries.conf.d/50-edge-registry.conf"


def configure(site: Site) -> ClientFiles:
    """Everything below /etc/containers; podman reads it with every command."""
    return ClientFiles("podman", files=container_files(site), notes=tuple(notes(site)))


def container_files(site: Site) -> tuple[File, ...]:
    """The files that all users of containers/image share, CRI-O among them."""
    files = [authority(f"{CERTS}/{host}", site) for host in site.trusted()]
    sections = [_insecure(host) for host in site.plain()] + [_mirrored(site, name) for name in site.named()]
    if sections:
        files.append(File(REGISTRIES, "\n".join([f"{MARK}\n", *sections])))
    return tuple(files)


def notes(site: Site) -> list[str]:
    """What cannot be said in these files."""
    if EVERYTHING in site.mirrors and not site.upstreams:
        return ["podman and CRI-O know no mirror of everything: name the registries, `--mirror docker.io --mirror ...`"]
    return []


def _insecure(host: str) -> str:
    return f"[[registry]]\nprefix = {json.dumps(host)}\nlocation = {json.dumps(host)}\ninsecure = true\n"


def _mirrored(site: Site, name: str) -> str:
    """The registry's name goes into the path, because these clients do not say otherwise for whom they ask."""
    lines = ["[[registry]]", f"prefix = {json.dumps(name)}", f"location = {json.dumps(name)}", "[[registry.mirror]]"]
    lines.append(f"location = {json.dumps(f'{site.mirror_host}/{name}')}")
    if site.mirror.startswith("http:"):
        lines.append("insecure = true")
    return "\n".join(lines) + "\n"

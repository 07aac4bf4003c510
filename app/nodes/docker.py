"""Docker: the authority of each host below `certs.d`; what only people should write into `daemon.json`."""

import json
from typing import Any, Final

from app.nodes.files import ByHand, ClientFiles, authority
from app.nodes.site import EVERYTHING, HUB, Site

CERTS: Final = "/etc/docker/certs.d"
DAEMON: Final = "/etc/docker/daemon.json"
RELOAD: Final = "systemctl reload docker"


def configure(site: Site) -> ClientFiles:
    """A folder for each host that needs the authority; Docker looks there at every pull."""
    files = tuple(authority(f"{CERTS}/{host}", site) for host in site.trusted())
    settings = _settings(site)
    if not settings:
        return ClientFiles("docker", files=files)
    add = ByHand(DAEMON, json.dumps(settings, indent=2) + "\n", f"add to it, then `{RELOAD}`")
    return ClientFiles("docker", files=files, by_hand=(add,), restart=(RELOAD,), notes=tuple(_notes(site)))


def _settings(site: Site) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if EVERYTHING in site.mirrors or HUB in site.mirrors:
        settings["registry-mirrors"] = [site.mirror]
    plain = [host for host in site.plain() if not host.startswith(("localhost", "127."))]
    if plain:
        settings["insecure-registries"] = plain
    return settings


def _notes(site: Site) -> list[str]:
    if "registry-mirrors" not in _settings(site):
        return []
    return [
        "Docker knows mirrors of Docker Hub only, does not say for which registry it asks, and does not log in to "
        f"them: the port of {site.mirror_host} needs `default_upstream: docker.io` and `anonymous: pull`"
    ]

"""BuildKit: the authority as a file, and what people add to `buildkitd.toml`, which has one owner only."""

import ipaddress
import json
from typing import Final
from urllib.parse import urlsplit

from app.nodes.files import ByHand, ClientFiles, authority
from app.nodes.site import EVERYTHING, Site

CONFIG: Final = "/etc/buildkit/buildkitd.toml"
CA_FOLDER: Final = "/etc/buildkit/edge-registry"
RESTART: Final = "systemctl restart buildkit"


def configure(site: Site) -> ClientFiles:
    """One section a registry; BuildKit reads them when it starts."""
    files = (authority(CA_FOLDER, site),) if site.trusted() else ()
    sections = [_section(name, [f"mirrors = [{json.dumps(site.mirror_host)}]"]) for name in site.named()]
    sections += [_section(host, _how(site, host)) for host in site.endpoints() if _how(site, host)]
    notes = ("BuildKit knows no mirror of everything: name the registries, `--mirror docker.io --mirror ...`",)
    unnamed = EVERYTHING in site.mirrors and not site.upstreams
    if not sections:
        return ClientFiles("buildkit", notes=notes if unnamed else ())
    add = ByHand(CONFIG, "\n".join(sections), f"add to it, then `{RESTART}`, or make the builder anew with it")
    return ClientFiles("buildkit", files=files, by_hand=(add,), restart=(RESTART,), notes=notes if unnamed else ())


def _how(site: Site, host: str) -> list[str]:
    """What BuildKit would get wrong: it speaks plain HTTP to loopback addresses, and TLS to all others."""
    if host in site.plain():
        return ["http = true"]
    lines = ["http = false"] if _is_loopback(host) else []
    return lines + ([f"ca = [{json.dumps(f'{CA_FOLDER}/ca.crt')}]"] if host in site.trusted() else [])


def _is_loopback(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _section(name: str, lines: list[str]) -> str:
    return "\n".join([f"[registry.{json.dumps(name)}]", *(f"  {line}" for line in lines)]) + "\n"

"""Files by which container clients learn that a registry has a mirror."""

from collections.abc import Mapping, Sequence
from pathlib import Path

EVERYTHING = "_default"
"""In place of a registry's name: all registries that have no file of their own."""


def write_hosts(folder: Path, name: str, mirror: str, *, override_path: bool = False) -> Path:
    """Containerd's hosts.toml: `folder` is for --hosts-dir, `name` the registry, `mirror` a URL. Returns `folder`.

    With `override_path` the mirror's URL is the whole way to its API, `/v2` and all.
    """
    file = folder / name / "hosts.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [f'[host."{mirror}"]', 'capabilities = ["pull", "resolve"]']
    if override_path:
        lines.append("override_path = true")
    if name != EVERYTHING:
        lines.insert(0, f'server = "https://{name}"')
    file.write_text("\n".join(lines) + "\n")
    return folder


def write_registries(home: Path, mirrors: Mapping[str, Sequence[str]]) -> Path:
    """The registries.conf of podman, buildah and skopeo for a user at home in `home`; returns the file.

    Maps a registry's name to its mirrors in the order in which they are asked, each `host:port/prefix` over plain HTTP.
    """
    file = home / ".config/containers/registries.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, locations in mirrors.items():
        lines += ["[[registry]]", f'prefix = "{name}"', f'location = "{name}"']
        for location in locations:
            lines += ["[[registry.mirror]]", f'location = "{location}"', "insecure = true"]
    file.write_text("\n".join(lines) + "\n")
    return file

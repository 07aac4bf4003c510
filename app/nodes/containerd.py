"""containerd: a folder for each registry below `certs.d`, read at every pull, and whether containerd looks there."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.nodes.files import MARK, ClientFiles, File, authority
from app.nodes.site import EVERYTHING, HUB, Site

CONFIG: Final = "/etc/containerd/config.toml"
CERTS: Final = "/etc/containerd/certs.d"
DEFAULT: Final = "_default"
RESTART: Final = "systemctl restart containerd"

_PLUGINS: Final = {
    1: ("cri",),
    2: ("io.containerd.grpc.v1.cri",),
    3: ("io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri"),
}
_INLINE: Final = ("mirrors", "configs")
"""Old ways to name registries in config.toml itself; containerd refuses to load them beside a `config_path`."""


@dataclass(frozen=True, slots=True)
class Looking:
    """Where containerd looks for `hosts.toml`; `missing` is what to add to config.toml where it does not look."""

    folder: str = CERTS
    missing: str | None = None
    notes: tuple[str, ...] = ()


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


def look(config: str | None, imported: Sequence[str] = ()) -> Looking:
    """Where a containerd with this config.toml (None: there is none) looks; `imported` are the texts of its imports."""
    version, registry = 0, dict[str, Any]()
    for text in [config, *imported]:
        if text is None:
            continue
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            return Looking(notes=(f"{CONFIG}, or what it imports, is not valid TOML: see whether containerd runs",))
        version = version or _version(document)
        registry |= _registry(document, version)
    folders = [one for one in str(registry.get("config_path", "")).split(":") if one]
    if folders:
        return Looking(folder=folders[0].rstrip("/"))
    if version >= 3 and "config_path" not in registry:
        return Looking()  # containerd 2 looks into certs.d unless it is told otherwise
    return Looking(missing=_missing(version or 2), notes=tuple(_advice(config, version or 2, registry)))


def imports(config: str | None) -> list[str]:
    """The paths and patterns of files that a config.toml imports."""
    try:
        found = tomllib.loads(config or "").get("imports", [])
    except tomllib.TOMLDecodeError:
        return []
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


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


def _version(document: Mapping[str, Any]) -> int:
    found = document.get("version", 1)
    return found if isinstance(found, int) and found > 0 else 1


def _registry(document: Mapping[str, Any], version: int) -> dict[str, Any]:
    plugins = document.get("plugins", {})
    merged: dict[str, Any] = {}
    for name in _PLUGINS.get(version, _PLUGINS[3]):
        plugin = plugins.get(name, {}) if isinstance(plugins, Mapping) else {}
        registry = plugin.get("registry", {}) if isinstance(plugin, Mapping) else {}
        merged = {**(registry if isinstance(registry, Mapping) else {}), **merged}
    return merged


def _missing(version: int) -> str:
    plugin = _PLUGINS.get(version, _PLUGINS[3])[0]
    key = plugin if version == 1 else f'"{plugin}"'
    head = "" if version == 1 else f"version = {version}\n"
    return f'{head}[plugins.{key}.registry]\n  config_path = "{CERTS}"\n'


def _advice(config: str | None, version: int, registry: Mapping[str, Any]) -> list[str]:
    empty = "config_path" in registry  # as `containerd config default` of 1.x writes it
    what = f"has no {CONFIG}" if config is None else f"sets {'an empty' if empty else 'no'} config_path in {CONFIG}"
    who, newer = ("containerd", "") if empty else ("containerd 1.x", "; containerd 2.x looks there by itself")
    added = " ".join(_missing(version).partition("[")[1:]).replace("[ ", "[")
    notes = [
        f"this node {what}: {who} looks into no certs.d until you have `{' '.join(added.split())}` there and restart it "
        f"once (`{RESTART}`; containers go on running){newer}"
    ]
    inline = [key for key in _INLINE if registry.get(key)]
    if inline:
        notes.append(
            f"{CONFIG} has registry.{' and registry.'.join(inline)}: containerd does not start its CRI plugin with "
            "these beside config_path, so move them to certs.d first"
        )
    return notes

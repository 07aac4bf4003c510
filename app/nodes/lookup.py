"""Where a containerd looks for registries, by its config.toml and its release."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

CONFIG: Final = "/etc/containerd/config.toml"
CERTS: Final = "/etc/containerd/certs.d"
RESTART: Final = "systemctl restart containerd"

_CRI: Final = "io.containerd.grpc.v1.cri"
_IMAGES: Final = "io.containerd.cri.v1.images"
_PLUGINS: Final = {1: (_CRI, "cri"), 2: (_CRI,), 3: (_CRI, _IMAGES), 4: (_IMAGES,)}
"""By the version of a file, the plugins that pull for the kubelet; the last one that says a thing is heard."""
_INLINE: Final = ("mirrors", "configs")
"""Old ways to name registries in config.toml itself; containerd refuses to load them beside a `config_path`."""
_LIST_IS_ONE_PATH: Final = (2, 1)
"""Since this release the transfer service pulls, and takes a `config_path` of several folders for the path of one."""
_LIST_BY_DEFAULT: Final = (2, 2)
"""Since this release a missing `config_path` is such a list: containerd's certs.d and Docker's."""
_EARLIEST: Final = {1: (1, 0), 2: (1, 0), 3: _LIST_IS_ONE_PATH}
"""What to expect of a containerd that nobody asked, by the version of its file; else it has lists by default."""
_LOCAL: Final[Mapping[str, object]] = {
    "use_local_image_pull": True,
    "discard_unpacked_layers": True,
    "image_pull_with_sync_fs": True,
    "disable_snapshot_annotations": False,
}
"""Settings with which containerd pulls as it did before there was a transfer service."""
_AT_A_TIME: Final = 3
"""How many layers are pulled at a time by default; any other number is such a setting too."""


@dataclass(frozen=True, slots=True)
class Looking:
    """Where containerd looks for `hosts.toml`; `missing` is what to add to config.toml where it does not look.

    Nothing is known of it where config.toml is not `valid`.
    """

    folder: str = CERTS
    missing: str | None = None
    notes: tuple[str, ...] = ()
    valid: bool = True


def look(config: str | None, imported: Sequence[str] = (), release: tuple[int, int] | None = None) -> Looking:
    """Where a containerd with this config.toml (None: there is none) looks for the kubelet.

    `imported` are the texts of its imports; `release` is (2, 4) for 2.4, None where it is not known.
    """
    try:
        documents = [tomllib.loads(text) for text in (config, *imported) if text is not None]
    except tomllib.TOMLDecodeError:
        broken = f"{CONFIG}, or what it imports, is not valid TOML: see whether containerd runs"
        return Looking(notes=(broken,), valid=False)
    version = _version(documents[0]) if documents else 2
    plugins = list(_plugins(documents))
    registry, local = _registry(plugins), any(_is_local(plugin) for plugin in plugins)
    expected = release or _EARLIEST.get(version, _LIST_BY_DEFAULT)
    folders = _folders(registry.get("config_path"))
    if not folders:
        if local and expected >= _LIST_BY_DEFAULT and not _inline(registry):
            return Looking()
        return Looking(missing=_missing(version), notes=tuple(_advice(config, version, registry)))
    if len(folders) == 1 or local or (release or (3, 0)) < _LIST_IS_ONE_PATH:
        return Looking(folder=folders[0])
    note = _of_a_list(version, folders[0], sure=expected >= _LIST_IS_ONE_PATH)
    return Looking(folders[0], _missing(version, folders[0]) if expected >= _LIST_IS_ONE_PATH else None, (note,))


def imports(config: str | None) -> list[str]:
    """The paths and patterns of files that a config.toml imports."""
    try:
        found = tomllib.loads(config or "").get("imports", [])
    except tomllib.TOMLDecodeError:
        return []
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def is_for_docker_alone(config: str | None) -> bool:
    """Whether no pods run with it: Docker's packages switch off the part of containerd that pulls for the kubelet."""
    try:
        disabled = tomllib.loads(config or "").get("disabled_plugins", [])
    except tomllib.TOMLDecodeError:
        return False
    return isinstance(disabled, list) and any(name in disabled for name in ("cri", _CRI, _IMAGES))


def of_any_node() -> str:
    """What a containerd may need, of which nothing is known."""
    return (
        f"where config_path in {CONFIG} is missing or empty, or names several folders and containerd is 2.1 or later, "
        f"it looks into no certs.d {_until(2, CERTS)}"
    )


def _version(document: Mapping[str, Any]) -> int:
    found = document.get("version", 1)
    return found if isinstance(found, int) and found > 0 else 1


def _plugins(documents: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The settings of those who pull, each file by its own version."""
    for document in documents:
        plugins = _table(document, "plugins")
        for name in _PLUGINS.get(_version(document), _PLUGINS[4]):
            yield _table(plugins, name)


def _registry(plugins: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for plugin in plugins:
        merged |= {key: value for key, value in _table(plugin, "registry").items() if value or key not in merged}
    return merged


def _folders(path: object) -> list[str]:
    """Those that a `config_path` names from the root on; containerd would take others from wherever it was started."""
    listed = path.split(":") if isinstance(path, str) else []
    return [one.rstrip("/") for one in listed if one.startswith("/") and one.strip("/")]


def _is_local(plugin: Mapping[str, Any]) -> bool:
    settings = {**_table(plugin, "containerd"), **plugin}  # files of version 2 have some of them one table deeper
    at_a_time = settings.get("max_concurrent_downloads", _AT_A_TIME) != _AT_A_TIME
    return at_a_time or any(settings.get(key) is value for key, value in _LOCAL.items())


def _missing(version: int, folder: str = CERTS) -> str:
    plugin = _PLUGINS.get(version, _PLUGINS[4])[-1]
    key = plugin if version == 1 else f'"{plugin}"'
    head = "" if version == 1 else f"version = {version}\n"
    return f'{head}[plugins.{key}.registry]\n  config_path = "{folder}"\n'


def _until(version: int, folder: str) -> str:
    added = " ".join(_missing(version, folder).partition("[")[1:]).replace("[ ", "[")
    return (
        f"until you have `{' '.join(added.split())}` there and restart it once (`{RESTART}`; containers go on running)"
    )


def _advice(config: str | None, version: int, registry: Mapping[str, Any]) -> list[str]:
    path = registry.get("config_path")
    sets = (
        "no" if path is None else "no absolute" if path else "an empty"
    )  # `containerd config default` writes it empty
    what = f"has no {CONFIG}" if config is None else f"sets {sets} config_path in {CONFIG}"
    notes = [f"this node {what}: containerd looks into no certs.d {_until(version, CERTS)}"]
    if inline := _inline(registry):
        notes.append(
            f"{CONFIG} has registry.{' and registry.'.join(inline)}: containerd does not start its CRI plugin with "
            "these beside config_path, so move them to certs.d first"
        )
    return notes


def _of_a_list(version: int, folder: str, *, sure: bool) -> str:
    who = "it looks" if sure else "such a containerd looks"
    return (
        f"config_path in {CONFIG} names several folders, which containerd 2.1 and later take for the path of one: {who} "
        f"into none of them {_until(version, folder)}"
    )


def _inline(registry: Mapping[str, Any]) -> list[str]:
    return [key for key in _INLINE if registry.get(key)]


def _table(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}

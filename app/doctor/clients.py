"""The clients on this host, and what each of them was told about the registry; nothing is changed."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app import documents
from app.doctor.authorities import crt_files, trouble_with
from app.doctor.names import Host, listed
from app.doctor.report import Check, failed, ok, warning
from app.errors import StartError
from app.nodes import containerd, detection, docker, k3s, lookup, podman
from app.nodes.files import Foreign
from app.nodes.root import Root

_DROP_INS: Final = "/etc/containers/registries.conf.d"
_REGISTRIES: Final = "/etc/containers/registries.conf"
_RELEASE: Final = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the clients should know: the registry's names, and the PEM of its authority where it is one of our own.

    `options` are those of `node-config` that say where that PEM lies, for the commands that are shown.
    """

    hosts: Sequence[Host]
    ca: str | None
    options: Sequence[str] = ()

    def fix(self, client: str) -> str:
        """The command that writes what a client needs."""
        words = [f"--for {client}", *(f"--host {host.text}" for host in self.hosts)]
        words += map(shlex.quote, self.options)
        words += ["--plain-http"] if self.hosts and all(host.scheme == "http" for host in self.hosts) else []
        return f"edge-registry node-config {' '.join(words)} | sudo sh"


def examine_clients(root: Root, wanted: Wanted, versions: Mapping[str, str]) -> list[Check]:
    """Every client of which there is a sign below `root`, blocking. `versions` maps a client to what it says of itself."""
    found = detection.found(root)
    names = [*found, *(name for name in versions if name not in found)]
    checks: list[Check] = []
    for client in names:
        examine = _CLIENTS.get(client)
        if examine is None:
            continue
        try:
            checks += list(examine(root, wanted, versions.get(client)))
        except (OSError, Foreign) as exc:
            what = getattr(exc, "strerror", None) or str(exc)
            checks.append(
                failed(client, f"its files cannot be read: {what}", "sudo edge-registry doctor --only clients")
            )
    return checks or [ok("clients", "none of containerd, k3s, docker and podman is on this host")]


def _containerd(root: Root, wanted: Wanted, version: str | None) -> Iterator[Check]:
    if lookup.is_for_docker_alone((root.read(lookup.CONFIG) or b"").decode(errors="replace")):
        yield ok("containerd", f"{version or 'it is here'}, for Docker alone: its CRI plugin is off")
        return
    looking = detection.look(root, _release(version))
    if not looking.valid:
        found = f"{lookup.CONFIG}, or what it imports, is not valid TOML: containerd does not start"
        yield failed("containerd", found, f"mend {lookup.CONFIG}")
        return
    if looking.missing is not None:
        words = " ".join(looking.missing.split())
        found = f"{version or 'it'} looks into no certs.d"
        yield warning("containerd", found, f"put `{words}` into {lookup.CONFIG} and run {lookup.RESTART}")
    else:
        yield ok("containerd", f"{version or 'it is here'}, and looks into {looking.folder}")
    for host in wanted.hosts:
        yield _containerd_host(root, wanted, host, looking.folder)


def _release(version: str | None) -> tuple[int, int] | None:
    """`containerd 2.4.2` -> (2, 4)."""
    found = _RELEASE.search(version or "")
    return (int(found[1]), int(found[2])) if found else None


def _containerd_host(root: Root, wanted: Wanted, host: Host, certs: str) -> Check:
    name, own = f"containerd {host.text}", f"{certs}/{host.text}"
    spelled = containerd.other_spelling(own)
    folder = next((one for one in (spelled, own) if one and root.exists(one)), None)
    if folder is None:
        return _untold(name, host, wanted, f"there is no {own}", "containerd")
    text = root.read(f"{folder}/hosts.toml")
    try:
        document = tomllib.loads(text.decode(errors="replace")) if text is not None else {}
    except tomllib.TOMLDecodeError:
        return failed(name, f"{folder}/hosts.toml is not valid TOML", wanted.fix("containerd"))
    entries = [document, *_tables(document.get("host"))]
    if any(entry.get("skip_verify") is True for entry in entries):
        return warning(name, f"{folder}/hosts.toml trusts whoever answers (skip_verify)", wanted.fix("containerd"))
    named = [path if path.startswith("/") else f"{folder}/{path}" for entry in entries for path in _texts(entry, "ca")]
    return _trusts(root, name, host, wanted, named or crt_files(root, folder), "containerd")


def _k3s(root: Root, wanted: Wanted, version: str | None) -> Iterator[Check]:
    data = root.read(k3s.PATH)
    try:
        document = documents.parse(data.decode(errors="replace"), "it") if data is not None else {}
    except StartError as exc:
        yield failed("k3s", f"{k3s.PATH}: {exc}, and k3s does not start with it", f"mend {k3s.PATH}")
        return
    document = document if isinstance(document, Mapping) else {}
    yield ok("k3s", f"{version or 'it is here'}, with {k3s.PATH if data is not None else f'no {k3s.PATH}'}")
    for host in wanted.hosts:
        entry = _section(_section(document, "configs"), host.text)
        known = host.text in _section(document, "mirrors") or bool(entry)
        tls = _section(entry, "tls")
        if not known:
            yield _untold(f"k3s {host.text}", host, wanted, f"{k3s.PATH} does not name it", "k3s")
        elif tls.get("insecure_skip_verify") is True:
            yield warning(f"k3s {host.text}", f"{k3s.PATH} trusts whoever answers", wanted.fix("k3s"))
        else:
            yield _trusts(root, f"k3s {host.text}", host, wanted, _texts(tls, "ca_file"), "k3s")


def _docker(root: Root, wanted: Wanted, version: str | None) -> Iterator[Check]:
    data = root.read(docker.DAEMON)
    try:
        daemon = json.loads(data) if data else {}
    except ValueError:
        daemon = None
    if not isinstance(daemon, dict):
        yield failed("docker", f"{docker.DAEMON} is not valid JSON: Docker does not start", f"mend {docker.DAEMON}")
        return
    mirrors, insecure = _texts(daemon, "registry-mirrors"), _texts(daemon, "insecure-registries")
    mirrored = f", Docker Hub through {listed(mirrors)}" if mirrors else ""
    yield ok("docker", f"{version or 'it is here'}{mirrored}")
    for host in wanted.hosts:
        name = f"docker {host.text}"
        if host.scheme == "http":
            if host.on_this_machine or host.text in insecure:
                yield ok(name, "reached without TLS")
            else:
                add = json.dumps({"insecure-registries": [host.text]})
                yield warning(name, "Docker wants TLS there", f"add {add} to {docker.DAEMON}, then {docker.RELOAD}")
        elif host.text in insecure:
            fix = f"take it out of insecure-registries in {docker.DAEMON}, then {docker.RELOAD}"
            yield warning(name, f"{docker.DAEMON} trusts whoever answers there", fix)
        else:
            yield _trusts(root, name, host, wanted, crt_files(root, f"{docker.CERTS}/{host.text}"), "docker")


def _podman(root: Root, wanted: Wanted, version: str | None) -> Iterator[Check]:
    registries: dict[str, Mapping[str, Any]] = {}
    drop_ins = root.real(_DROP_INS)
    names = sorted(one.name for one in drop_ins.iterdir()) if drop_ins.is_dir() else []
    for path in [_REGISTRIES, *(f"{_DROP_INS}/{name}" for name in names if name.endswith(".conf"))]:
        try:
            document = tomllib.loads((root.read(path) or b"").decode(errors="replace"))
        except tomllib.TOMLDecodeError:
            yield failed("podman", f"{path} is not valid TOML: podman refuses every command", f"mend {path}")
            return
        for entry in document.get("registry", []) if isinstance(document.get("registry"), list) else []:
            registries[str(entry.get("prefix") or entry.get("location"))] = entry
    yield ok("podman", f"{version or 'its files are here'}, {len(registries)} registries configured")
    for host in wanted.hosts:
        name, entry = f"podman {host.text}", registries.get(host.text, {})
        if entry.get("blocked") is True:
            yield failed(name, "registries.conf blocks it", f"take `blocked` of {host.text} out of {_REGISTRIES}")
        elif host.scheme == "http":
            told = entry.get("insecure") is True
            untold = _untold(name, host, wanted, "podman wants TLS there", "podman", always=True)
            yield ok(name, "reached without TLS") if told else untold
        elif entry.get("insecure") is True:
            yield warning(name, "registries.conf trusts whoever answers there", wanted.fix("podman"))
        else:
            files = crt_files(root, f"{podman.CERTS}/{host.text}") or crt_files(root, f"{docker.CERTS}/{host.text}")
            yield _trusts(root, name, host, wanted, files, "podman")


_CLIENTS: Final[dict[str, Callable[[Root, Wanted, str | None], Iterator[Check]]]] = {
    "containerd": _containerd,
    "k3s": _k3s,
    "docker": _docker,
    "podman": _podman,
}


def _trusts(root: Root, name: str, host: Host, wanted: Wanted, files: list[str], client: str) -> Check:
    """Whether the authority that a client has for a host is ours."""
    if host.scheme == "http" or wanted.ca is None:
        return ok(
            name, "it is configured" if files or host.scheme == "http" else "the system's authorities are trusted"
        )
    trouble = trouble_with(root, files, wanted.ca)
    if trouble is None:
        return ok(name, f"{files[0]} is our authority")
    return (failed if files else warning)(name, trouble, wanted.fix(client))


def _untold(name: str, host: Host, wanted: Wanted, why: str, client: str, *, always: bool = False) -> Check:
    """A client that knows nothing of a host: right for a publicly trusted certificate, and for plain HTTP at home."""
    needs = wanted.ca is not None if host.scheme == "https" else always or not host.on_this_machine
    return warning(name, why, wanted.fix(client)) if needs else ok(name, f"{why}, and it needs none")


def _tables(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value.values() if isinstance(one, Mapping)] if isinstance(value, Mapping) else []


def _section(value: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def _texts(value: Mapping[Any, Any], key: str) -> list[str]:
    """A text, or a list of texts, as a list."""
    found = value.get(key)
    found = [found] if isinstance(found, str) else found
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []

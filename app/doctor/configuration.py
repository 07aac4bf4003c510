"""The configuration: what is wrong with it, who may come in through which door, and the files that it names."""

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import bcrypt

from app.auth.htpasswd import LONGEST_PASSWORD, Entries, parse
from app.doctor.names import listed
from app.doctor.report import Check, failed, ok, warning

_ORIGIN: Final = re.compile(r" \(((?:file|environment|option) [^()]+)\)$")
_MEANT: Final = re.compile(r"did you mean ([\w.\[\]]+)\?")
_SHOW: Final = "edge-registry config show, which lists all keys; then mend"


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file that the configuration names with `key`. `secret`: only the registry's user should read it."""

    key: str
    path: Path
    secret: bool = False
    kind: Literal["file", "folder"] = "file"


@dataclass(frozen=True, slots=True)
class Way:
    """A way into the registry: `anonymous` is what callers without a login may do, `asks` whether one is asked for."""

    key: str
    host: str
    port: int
    loopback: bool
    anonymous: Literal["none", "pull", "push"] | None
    asks: bool
    read_only: bool


def refusals(message: str) -> list[Check]:
    """A check for each line of what the configuration was refused with."""
    return [_refusal(line) for line in message.splitlines()]


def cautions(warnings: Iterable[str]) -> Iterator[Check]:
    """A check for each warning of the configuration."""
    for line in warnings:
        origin = _ORIGIN.search(line)
        where = f" out of {origin[1]}" if origin else " out"
        yield warning("setting", _ORIGIN.sub("", line), f"take it{where}")


def examine_ways(ways: Sequence[Way], *, users: bool) -> Iterator[Check]:
    """Who may come in, at each listener."""
    add = "edge-registry user add NAME, and set auth.htpasswd"
    for way in ways:
        place = f"{way.host}:{way.port}"
        open_to = "everybody on this machine" if way.loopback else "everybody who can reach it"
        if way.anonymous == "push" and not way.read_only and not way.loopback:
            fix = add if not users else f"set {'auth' if way.key == 'http' else way.key}.anonymous: pull"
            yield warning("access", f"{place}: {open_to} may push and delete without a password", fix)
        elif way.anonymous == "none" and not users:
            yield failed("access", f"{place}: there are no users, and nobody may come in without one", add)
        elif way.anonymous in ("pull", "push"):
            may = "pull" if way.anonymous == "pull" or way.read_only else "push"
            yield ok("access", f"{place}: {open_to} may {may} without a password")
        else:
            yield ok("access", f"{place}: nobody comes in without a password")


def examine_files(files: Sequence[NamedFile], *, shared: bool) -> Iterator[Check]:
    """Whether this user can use them, blocking. `shared`: other people may be on this machine."""
    good: list[NamedFile] = []
    for file in files:
        trouble = _trouble(file)
        if trouble is not None:
            yield trouble
        elif shared and file.secret and _open_to_all(file.path):
            found = f"{file.path} holds secrets, and everybody on this machine may read it"
            yield warning(file.key, found, f"chmod o= {file.path}")
        else:
            good.append(file)
    if good:
        yield ok("files", f"{listed(list(dict.fromkeys(str(file.path) for file in good)))}: usable")


def examine_users(path: Path) -> Iterator[Check]:
    """The users' file, blocking, where it can be read."""
    try:
        found: Entries = parse(path.read_bytes())
    except OSError:
        return  # the file has a check of its own
    except ValueError as exc:
        yield failed("users", f"{path}: {exc}", f"mend {path}, or make it anew with edge-registry user add NAME")
        return
    for line in found.warnings:
        yield warning("users", f"{path}: {line}", "edge-registry user add NAME, with the password again")
    if not found.hashes:
        yield failed("users", f"{path} holds no user that can log in", f"edge-registry user add NAME --file {path}")
    else:
        yield ok("users", f"{len(found.hashes)} in {path}")


def knows(path: Path, user: str, password: str) -> bool | None:
    """Whether the users' file lets this login in, blocking; None where it cannot be read."""
    try:
        line = parse(path.read_bytes()).hashes.get(user)
    except (OSError, ValueError):
        return None
    data = password.encode()
    return line is not None and len(data) <= LONGEST_PASSWORD and bcrypt.checkpw(data, line)


def _refusal(line: str) -> Check:
    origin, meant = _ORIGIN.search(line), _MEANT.search(line)
    found = _ORIGIN.sub("", line)
    where = origin[1] if origin else "the configuration"
    if meant:
        return failed("setting", f"{found.partition(';')[0]} in {where}", f"write {meant[1]} in {where}")
    if "is open to the network" in found:
        return failed("access", found.partition(": ")[0], "edge-registry user add NAME, and set auth.htpasswd")
    path = re.search(r"cannot read (?:the configuration )?(\S+):", found)
    if path:
        return failed("setting", found, f"ls -l {path[1]}, and give this user read access")
    return failed("setting", found.partition("; `edge-registry config show`")[0], f"{_SHOW} {where}")


def _trouble(file: NamedFile) -> Check | None:
    if file.kind == "folder":
        return _folder_trouble(file)
    try:
        with file.path.open("rb") as content:
            content.read(1)
    except FileNotFoundError:
        return failed(file.key, f"{file.path.absolute()} is not there", f"set {file.key} to the file, or make it")
    except IsADirectoryError:
        return failed(file.key, f"{file.path.absolute()} is a folder", f"set {file.key} to a file")
    except OSError as exc:
        fix = f"chown {os.geteuid()} {file.path.absolute()}"
        return failed(file.key, f"{file.path.absolute()} cannot be read: {exc.strerror}", fix)
    return None


def _folder_trouble(file: NamedFile) -> Check | None:
    """A folder that the server makes where it is missing."""
    path = file.path.absolute()
    there = next((one for one in (path, *path.parents) if one.exists()), path)
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return None
    return failed(file.key, f"{there} cannot be written by this user", f"chown {os.geteuid()} {there}")


def _open_to_all(path: Path) -> bool:
    """Whether other people of this machine may read a file: it is readable, and so are all folders above it."""
    real = path.resolve()
    if not real.stat().st_mode & stat.S_IROTH:
        return False
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in real.parents)

"""Archives of images as `docker save` writes them, made from files of this machine without any client."""

import hashlib
import io
import json
import posixpath
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tests.services.images import CREATED, EXECUTABLE

FOLDER: Final = 0o755


class Layer:
    """A layer that is being written to `target`; all in it belongs to root. Leaving its context finishes the file."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self._tar = tarfile.open(target, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - `__exit__` closes it
        self._held: set[str] = set()
        self._folders: set[str] = set()

    def __enter__(self) -> "Layer":
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def folder(self, path: str, *, mode: int = FOLDER, owner: int = 0) -> None:
        """Adds a folder; the path has no slash at its beginning."""
        member = self._member(path, mode)
        member.type, member.uid, member.gid = tarfile.DIRTYPE, owner, owner
        self._folders.add(path)
        self._tar.addfile(member)

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        """Adds a file with these bytes."""
        member = self._member(path, mode)
        member.size = len(data)
        self._tar.addfile(member, io.BytesIO(data))

    def link(self, path: str, target: str) -> None:
        """Adds a symbolic link."""
        member = self._member(path, 0o777)
        member.type, member.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(member)

    def copy(self, source: Path, path: str, *, mode: int | None = None) -> None:
        """Adds a copy of the file, or of what the link `source` leads to; a path that is there already stays as it is.

        The time of the file is kept: Python's compiled files are valid only with that of their source.
        """
        if path in self._held:
            return
        self._held.add(path)
        status = source.stat()
        member = self._member(path, status.st_mode & 0o777 if mode is None else mode)
        member.size, member.mtime = status.st_size, int(status.st_mtime)
        with source.open("rb") as data:
            self._tar.addfile(member, data)

    def _member(self, path: str, mode: int) -> tarfile.TarInfo:
        path = posixpath.normpath(path)
        # A folder that a layer does not name is made for root alone by older Dockers.
        parent = posixpath.dirname(path)
        if parent and parent not in self._folders:
            self.folder(parent)
        member = tarfile.TarInfo(path)
        member.mode = mode
        return member


def write_archive(target: Path, name: str, layers: Sequence[Path], config: Mapping[str, Any]) -> Path:
    """One image `name` (with its tag) of finished layers; `config` is what runs in it: Entrypoint, User, Env, ..."""
    diff_ids = [_sha256(layer) for layer in layers]
    document = json.dumps(
        {
            "created": CREATED,
            "architecture": "amd64",
            "os": "linux",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff_id}" for diff_id in diff_ids]},
        }
    ).encode()
    manifest = {
        "Config": f"{hashlib.sha256(document).hexdigest()}.json",
        "RepoTags": [name],
        "Layers": [f"{diff_id}/layer.tar" for diff_id in diff_ids],
    }
    with Layer(target) as archive:
        for layer, path in zip(layers, manifest["Layers"], strict=True):
            archive.copy(layer, path)
        archive.write(str(manifest["Config"]), document)
        archive.write("manifest.json", json.dumps([manifest]).encode())
    return target


def write_program(target: Path, name: str, programs: Iterable[Path], config: Mapping[str, Any] | None = None) -> Path:
    """An image of static programs at its root; the first is what runs, unless `config` says another."""
    layer = target.with_suffix(".layer")
    first, *others = programs
    with Layer(layer) as files:
        for program in (first, *others):
            files.copy(program, program.name, mode=EXECUTABLE)
    write_archive(target, name, [layer], {"Entrypoint": [f"/{first.name}"]} | dict(config or {}))
    layer.unlink()
    return target


def _sha256(path: Path) -> str:
    with path.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()

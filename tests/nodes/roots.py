"""Roots of nodes in folders, pictures of them, and the command line that works on them."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.cli.conftest import Ended, run_to_end

HOSTS: Final = "127.0.0.1 localhost\n::1 ip6-localhost\n\n# kept\t by people\n10.1.1.1  printer.lan # old\n"
PROGRAM: Final = (sys.executable, "-m", "tests.nodes.program")
OLD_CONTAINERD: Final = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "pause:3.9"\n'
SET_CONTAINERD: Final = (
    'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n'
)
NEW_CONTAINERD: Final = 'version = 3\n[plugins."io.containerd.cri.v1.images"]\n  snapshotter = "overlayfs"\n'


def make_root(folder: Path, files: Mapping[str, str]) -> Path:
    """Adds files to a root; a name that ends with a slash is an empty folder. Returns the root."""
    (folder / "var/lib").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(text.encode())
    return folder


def picture(folder: Path) -> dict[str, tuple[int, bytes | str | None]]:
    """Everything below a folder: permissions, and content, target of a link, or None for a folder."""
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(folder.rglob("*")):
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(folder))] = (path.lstat().st_mode, content)
    return found


def program(*arguments: str, cwd: Path, stdin: str = "", extra: Mapping[str, str] | None = None) -> Ended:
    """Runs one command of nodes to its end; a traceback fails the test."""
    return run_to_end([*PROGRAM, *arguments], cwd=cwd, stdin=stdin, extra=extra)

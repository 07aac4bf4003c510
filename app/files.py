"""Files that are replaced whole: a reader sees the old one or the new one."""

import os
import tempfile
from pathlib import Path


def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Writes `data` to `path`, durably, with these permissions from its first byte on. Raises OSError.

    Root leaves a file that was there with its owner.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with open(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            if path.exists() and os.geteuid() == 0:
                owner = path.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise

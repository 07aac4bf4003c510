"""Files that are replaced whole: a reader sees the old one or the new one."""

import os
import tempfile
from pathlib import Path


def replace(path: Path, data: bytes, mode: int) -> None:
    """Writes `data` to `path`, durably, with these permissions from its first byte on. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with open(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise

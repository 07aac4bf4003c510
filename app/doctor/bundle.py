"""The support bundle: what somebody who helps wants to see, in one file, without any secret."""

import io
import json
import os
import platform
import re
import ssl
import sys
import tarfile
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final
from urllib.parse import quote

from app.errors import StartError
from app.files import replace

_PACKAGES: Final = (
    "edge-registry", "aiobotocore", "aiohttp", "bcrypt", "cryptography", "fastapi", "google-auth", "libpass", "pydantic",
    "pyyaml", "structlog", "uvicorn", "uvloop",
)  # fmt: skip
_SHORTEST: Final = 3
"""Characters of a secret below which it is not searched for: it would be found everywhere."""
_LIKELY: Final = re.compile(r"(?i)(authorization|password|passwd|secret|token)(\"?\s*[:=]\s*\"?)(?!\*)[^\s\",;#]+")


def write_bundle(path: Path, pages: Mapping[str, str], secrets: Iterable[str]) -> None:
    """Packs `pages` (file name -> text) into a `.tar.gz` that only this user can read, blocking.

    Whatever the pages were made of, none of `secrets` gets into it. Raises StartError.
    """
    spelled = {text for one in secrets for text in (one, json.dumps(one)[1:-1], quote(one, safe=""))}
    known = sorted((one for one in spelled if len(one) >= _SHORTEST), key=len, reverse=True)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in pages.items():
            data = _hidden(text, known).encode()
            member = tarfile.TarInfo(f"edge-registry-doctor/{name}")
            member.size, member.mode, member.mtime = len(data), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(data))
    try:
        replace(path, file.getvalue(), 0o600)
    except OSError as exc:
        raise StartError(f"the bundle cannot be written to {path}: {exc.strerror or exc}") from exc


def versions(clients: Mapping[str, str]) -> str:
    """What runs here, in which version."""
    lines = [
        f"python {sys.version.split()[0]}",
        f"platform {platform.platform()}",
        f"openssl {ssl.OPENSSL_VERSION}",
        f"processors {os.cpu_count()}",
        *(f"{name} {_version(name)}" for name in _PACKAGES),
        *clients.values(),
    ]
    return "\n".join(lines) + "\n"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not installed"


def _hidden(text: str, known: list[str]) -> str:
    for secret in known:
        text = text.replace(secret, "****")
    return _LIKELY.sub(r"\1\2****", text)

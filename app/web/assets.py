"""Files that pages bring along: read once, named by their content, sent compressed to those who take it."""

import asyncio
import gzip
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

_SOURCES: Final[Mapping[str, tuple[str, str]]] = {
    "docs.js": ("app.web", "static/docs.js"),
    "swagger-ui.js": ("fastapi_swagger", "resources/swagger-ui-bundle.js"),
    "swagger-ui.css": ("fastapi_swagger", "resources/swagger-ui.css"),
    "favicon.png": ("fastapi_swagger", "resources/favicon-32x32.png"),
}
"""Name -> package, and the file in it."""

_TYPES: Final = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "png": "image/png"}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file; `compressed` (gzip) is None where that saves nothing."""

    name: str
    media_type: str
    version: str
    data: bytes
    compressed: bytes | None


class Assets:
    """Every file, read from its package at the first request for one: most servers never show a page."""

    def __init__(self) -> None:
        self._assets: Mapping[str, Asset] = {}

    async def all(self) -> Mapping[str, Asset]:
        """By name."""
        if not self._assets:
            self._assets = await asyncio.to_thread(lambda: {asset.name: asset for asset in _read()})
        return self._assets


def _read() -> Iterator[Asset]:
    for name, (package, path) in _SOURCES.items():
        data = resources.files(package).joinpath(path).read_bytes()
        compressed = gzip.compress(data, mtime=0)
        yield Asset(
            name,
            _TYPES[name.rpartition(".")[2]],
            hashlib.sha256(data).hexdigest()[:16],
            data,
            compressed if len(compressed) < len(data) * 0.9 else None,
        )

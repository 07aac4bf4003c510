"""Platforms: which images of an index are for them."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from app.oci.digests import Digest

EVERY: Final = "all"
"""The platform that means all of them."""


def choose(children: Iterable[Any], platforms: Sequence[str]) -> tuple[list[Digest], list[str]]:
    """The images of an index that are for `platforms`, and the platforms for which there is none.

    As for container engines, an image that names no platform is for every one.
    """
    listed = [(Digest(child["digest"]), _spellings(child.get("platform"))) for child in children]
    wanted = {_plain(platform) for platform in platforms}
    if EVERY in wanted:
        return [digest for digest, _ in listed], []
    chosen = [digest for digest, spelled in listed if spelled is None or spelled & wanted]
    offered = {spelling for _, spelled in listed for spelling in spelled or ()}
    if any(spelled is None for _, spelled in listed):
        offered |= wanted
    return chosen, [platform for platform in platforms if _plain(platform) not in offered]


def chosen_of(index: bytes, platforms: Sequence[str]) -> tuple[list[Digest], list[str]]:
    """As `choose`, of the bytes of an index that was parsed before."""
    return choose(json.loads(index)["manifests"], platforms)


def named_for(index: bytes, platforms: Sequence[str]) -> list[Digest]:
    """The images of an index that say themselves that they are for one of `platforms`."""
    wanted = {_plain(platform) for platform in platforms}
    listed = json.loads(index)["manifests"]
    return [Digest(child["digest"]) for child in listed if wanted & (_spellings(child.get("platform")) or set())]


def _spellings(platform: Any) -> set[str] | None:
    if not isinstance(platform, dict):
        return None
    short = f"{platform.get('os')}/{platform.get('architecture')}"
    variant = platform.get("variant")
    return {short, _plain(f"{short}/{variant}")} if variant else {short}


def _plain(platform: str) -> str:
    """Every arm64 is a v8, whether or not it says so."""
    return "linux/arm64" if platform == "linux/arm64/v8" else platform

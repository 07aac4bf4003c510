"""The hosts file of a node: a name and its address, between our own markers, for nodes that no DNS server knows."""

from collections.abc import Mapping
from functools import partial
from typing import Final

from app.nodes import blocks
from app.nodes.files import Edit, Foreign

PATH: Final = "/etc/hosts"


def edit(addresses: Mapping[str, str]) -> Edit:
    """The entries of a site; none takes away those that are there."""
    return Edit(PATH, partial(inserted, addresses=addresses))


def inserted(text: str, addresses: Mapping[str, str]) -> str:
    """The file with these entries. Raises Foreign where somebody else gives one of the names another address."""
    others = entries(blocks.strip(text))
    wanted: dict[str, list[str]] = {}
    for name, address in sorted(addresses.items()):
        theirs = others.get(name, [])
        if theirs and address not in theirs:
            raise Foreign(f"somebody else's line gives {name} the address {theirs[0]}: take it away first")
        if not theirs:
            wanted.setdefault(address, []).append(name)
    body = "".join(f"{address}\t{' '.join(names)}\n" for address, names in sorted(wanted.items()))
    return blocks.replace(text, body)


def ours(text: str) -> dict[str, str]:
    """The entries that we wrote. Raises Foreign."""
    return {name: found[0] for name, found in entries(blocks.inner(text)).items()}


def entries(text: str) -> dict[str, list[str]]:
    """Name -> its addresses, in the order of the file."""
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        address, *names = line.partition("#")[0].split() or [""]
        for name in names:
            found.setdefault(name.lower(), []).append(address)
    return found

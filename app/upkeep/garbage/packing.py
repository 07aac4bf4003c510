"""Digests and uuids as the few bytes that temporary files hold of them."""

from typing import Final

from app.oci.digests import Digest

Packed = bytes | str
"""Bytes where a name is hexadecimal, else the name itself."""

_LENGTHS: Final = {32: "sha256", 64: "sha512"}


def packed_digest(digest: str) -> Packed:
    """What `digest_in` reads."""
    algorithm, _, hexadecimal = digest.partition(":")
    try:
        found = bytes.fromhex(hexadecimal)
    except ValueError:
        return digest
    return found if _LENGTHS.get(len(found)) == algorithm and found.hex() == hexadecimal else digest


def digest_in(packed: Packed) -> Digest:
    """The digest that was packed."""
    if isinstance(packed, str):
        return Digest(packed)
    return Digest(f"{_LENGTHS[len(packed)]}:{packed.hex()}")


def packed_uuid(uuid: str) -> Packed:
    """What `uuid_in` reads."""
    try:
        found = bytes.fromhex(uuid)
    except ValueError:
        return uuid
    return found if found.hex() == uuid else uuid


def uuid_in(packed: Packed) -> str:
    """The uuid that was packed."""
    return packed if isinstance(packed, str) else packed.hex()

"""Digests: which algorithms there are, and what a valid digest looks like."""

import hashlib
import re
from typing import TYPE_CHECKING, Final, NewType

from app.oci.errors import DigestInvalid

if TYPE_CHECKING:
    from hashlib import _Hash as Hash

Digest = NewType("Digest", str)
"""`sha256:<64 hex>` or `sha512:<128 hex>`, lower case; only `parse_digest` and `digest_of` make one."""

ALGORITHMS: Final = ("sha256", "sha512")
DEFAULT_ALGORITHM: Final = "sha256"

_SHAPE: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def parse_digest(text: str) -> Digest:
    """The digest, or DigestInvalid: other algorithms, upper case and wrong lengths are refused."""
    if not _SHAPE.fullmatch(text):
        raise DigestInvalid("invalid or unsupported digest", detail={"digest": text[:200]})
    return Digest(text)


def is_digest(text: str) -> bool:
    """Whether a reference is meant as a digest rather than a tag: tags have no colon."""
    return ":" in text


def parse_algorithm(text: str) -> str:
    """`sha256` or `sha512`, or DigestInvalid (specification, end-4c)."""
    if text not in ALGORITHMS:
        raise DigestInvalid("unsupported digest algorithm", detail={"algorithm": text[:32]})
    return text


def new_hash(algorithm: str) -> "Hash":
    """A fresh hash of a valid algorithm."""
    return hashlib.new(algorithm)


def digest_of(data: bytes, algorithm: str = DEFAULT_ALGORITHM) -> Digest:
    """The digest of bytes in memory."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")


def algorithm_of(digest: Digest) -> str:
    """`sha256` or `sha512`."""
    return digest.partition(":")[0]

"""What a key of the bucket says, told apart from what somebody put there by hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.oci.digests import Digest, parse_digest
from app.oci.errors import RegistryError
from app.oci.manifests import parse_media_type
from app.oci.names import Name, parse_name
from app.oci.references import Tag, parse_tag
from app.registry import keys
from app.registry.keys import Copy, Entry


@dataclass(frozen=True, slots=True)
class Link:
    """A repository holds this copy of a blob."""

    name: Name
    digest: Digest
    copy: Copy


@dataclass(frozen=True, slots=True)
class Stored:
    """A repository holds this manifest."""

    name: Name
    entry: Entry


@dataclass(frozen=True, slots=True)
class Tagged:
    """A repository has this tag; `size` in bytes of its object, 0 where a policy emptied it."""

    name: Name
    tag: Tag
    size: int


@dataclass(frozen=True, slots=True)
class Referring:
    """A descriptor of the manifest `digest`, `nonce`, that refers to `subject`."""

    name: Name
    subject: Digest
    digest: Digest
    nonce: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """A manifest was deleted in this repository once."""

    name: Name


@dataclass(frozen=True, slots=True)
class Pulled:
    """A cached manifest of this repository was pulled."""

    name: Name


@dataclass(frozen=True, slots=True)
class Holder:
    """Derived: this repository holds this copy."""

    digest: Digest
    copy: Copy
    name: Name


Placed = Link | Stored | Tagged | Referring | Deleted | Pulled


def place(key: str, size: int) -> Placed | None:
    """What a key below keys.REPOSITORIES says; `size` in bytes of its object. None for one not of the registry's making."""
    try:
        name, kind = keys.placed(key)
        found, spelled = _KINDS[kind](parse_name(name), key, size)
    except (ValueError, IndexError, KeyError, RegistryError):
        return None
    return found if spelled == key else None


def holder(key: str) -> Holder | None:
    """What a key below keys.HOLDERS says, or None as for `place`."""
    try:
        digest = parse_digest(keys.digest_below(key))
        copy, name = keys.holding(key)
        found = Holder(digest, _possible(copy), parse_name(name))
    except (ValueError, IndexError, RegistryError):
        return None
    return found if keys.holder(digest, copy, found.name) == key else None


def catalogued(key: str) -> Name | None:
    """The repository that a key below keys.CATALOG names, or None as for `place`."""
    try:
        name = parse_name(keys.catalogued(key))
    except RegistryError:
        return None
    return name if keys.catalog(name) == key else None


def uuid_of(key: str) -> str | None:
    """The copy whose bytes a key below keys.DATA holds, or None as for `place`."""
    uuid = key.removeprefix(keys.DATA)
    return uuid if uuid and "/" not in uuid and "!" not in uuid else None


def _link(name: Name, key: str, _size: int) -> tuple[Placed, str]:
    digest, copy = parse_digest(keys.digest_below(key)), _possible(keys.copy_of(key))
    return Link(name, digest, copy), keys.link(name, digest, copy)


def _stored(name: Name, key: str, size: int) -> tuple[Placed, str]:
    entry = keys.entry_of(key, size)
    if not entry.nonce or parse_media_type(entry.media_type) != entry.media_type:
        raise ValueError(key)
    parse_digest(entry.digest)
    return Stored(name, entry), keys.manifest(name, entry)


def _tagged(name: Name, key: str, size: int) -> tuple[Placed, str]:
    tag = parse_tag(keys.tagged(key))
    return Tagged(name, tag, size), keys.tag(name, tag)


def _referring(name: Name, key: str, _size: int) -> tuple[Placed, str]:
    subject = parse_digest(keys.digest_below(key))
    digest, nonce = keys.referring(key)
    parse_digest(digest)
    return Referring(name, subject, digest, nonce), keys.referrer(name, subject, digest, nonce)


def _deleted(name: Name, key: str, _size: int) -> tuple[Placed, str]:
    return Deleted(name), key


def _pulled(name: Name, key: str, _size: int) -> tuple[Placed, str]:
    return Pulled(name), keys.pull(name, parse_digest(keys.digest_below(key)))


def _possible(copy: Copy) -> Copy:
    """Raises ValueError for a copy that cannot have been made."""
    if not copy.uuid or copy.size < 0 or ("!" in copy.uuid and not copy.adopted):
        raise ValueError(copy.name)
    keys.data(copy.uuid)
    return copy


_KINDS: Final[dict[str, Callable[[Name, str, int], tuple[Placed, str]]]] = {
    "blobs": _link,
    "manifests": _stored,
    "tags": _tagged,
    "referrers": _referring,
    "deletions": _deleted,
    "pulls": _pulled,
}

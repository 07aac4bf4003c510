"""What CNCF Distribution keeps in a bucket or folder: read, never written.

::

    [<root>/]scheduler-state.json                          a pull-through cache: when it deletes what it fetched
    [<root>/]docker/registry/v2/
        blobs/<alg>/<xx>/<hex>/data                        bytes of blobs, and of manifests
        repositories/<R>/_layers/<alg>/<hex>/link          R holds this blob; the file is a digest
        repositories/<R>/_manifests/revisions/<alg>/<hex>/link     R holds this manifest
        repositories/<R>/_manifests/tags/<tag>/current/link        what a tag names
        repositories/<R>/_manifests/tags/<tag>/index/...           what it named before
        repositories/<R>/_uploads/...                              unfinished uploads

Key order puts all of a repository together: its blobs, then its manifests, then its tags.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import Final

from app.errors import StartError
from app.oci.digests import Digest, parse_digest
from app.oci.errors import DigestInvalid, NameInvalid, RegistryError
from app.oci.manifests import MAX_BYTES
from app.oci.names import Name, parse_name
from app.oci.references import Tag, parse_tag
from app.registry import keys
from storage import Driver, Entry, NotFound

_ROOT: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")
_LONGEST_ROOT: Final = 64
_LONGEST_LINK: Final = 256
_NAMES: Final = re.compile(r"[a-z0-9*?\[][a-z0-9._/*?\[\]!-]{0,253}")
_GLOB: Final = re.compile(r"[*?\[]")
_LONG: Final = re.compile(r"uploads/|manifests/tags/[^/]+/index/")
_LAST: Final = "~"
"""Sorts after all that a key may hold."""

Odd = Callable[[str, str, str], None]
"""Called with a repository, what of it, and why it cannot be read."""


class Kind(IntEnum):
    """In the order in which a repository lists them."""

    BLOB = 0
    MANIFEST = 1
    TAG = 2


@dataclass(frozen=True, slots=True)
class Link:
    """A file that says that a repository holds a blob or manifest, or what a tag names."""

    name: Name
    kind: Kind
    what: Digest | Tag
    version: str
    """Changes with the file, and is what keys may hold."""
    key: str
    exact: bool
    """Whether the file is known to hold just `what`."""

    @property
    def order(self) -> tuple[str, int, str]:
        """Where the listing has it."""
        return order(self.name, self.kind, self.what)


class Garbled(Exception):
    """A file does not hold what files of its kind hold; the message is for people."""


def order(name: Name, kind: Kind, what: str) -> tuple[str, int, str]:
    """Sorts as the keys of the layout do."""
    return f"{name}/_", kind, f"{what.replace(':', '/')}/"


def parse_root(text: str) -> str:
    """Distribution's `rootdirectory` in a bucket, without slashes at its ends. Raises StartError."""
    root = text.strip("/")
    if root and (len(root) > _LONGEST_ROOT or not _ROOT.fullmatch(root)):
        raise StartError(f"{text[:80]!r} is no folder of a bucket: letters, digits, `.`, `_`, `-` and `/`, 64 at most")
    return root


def parse_names(text: str) -> str:
    """A glob of repository names. Raises StartError."""
    if not _NAMES.fullmatch(text):
        raise StartError(f"{text[:80]!r} is no glob of repositories such as team/*")
    return text


class Layout:
    """The layout below `root` of a store, as far as repositories match the glob `names`."""

    def __init__(self, driver: Driver, root: str, names: str = "*") -> None:
        self._driver, self.root, self.names = driver, root, names
        self._repositories = f"{root}{'/' if root else ''}{keys.DISTRIBUTION}repositories/"

    async def exists(self) -> bool:
        """Whether there is such a layout at all. Raises StorageError."""
        return bool((await self._driver.list(self._repositories, limit=1)).entries)

    async def expires(self) -> bool:
        """Whether a pull-through cache wrote it, which deletes bytes when their time is over. Raises StorageError."""
        try:
            await self._driver.stat(f"{self.root}{'/' if self.root else ''}scheduler-state.json")
        except NotFound:
            return False
        return True

    async def links(self, odd: Odd) -> AsyncIterator[Link]:
        """Every link of blobs, manifests and tags, in order. Names that are none here go to `odd`. Raises StorageError."""
        prefix = f"{self._repositories}{self.literal}"
        after, more = "", True
        while more:
            page = await self._driver.list(prefix, after=after)
            for entry in page.entries:
                link = self._read(entry, odd)
                if link is not None and self.means(link.name):
                    yield link
            last = page.entries[-1].key.removeprefix(self._repositories) if page.entries else ""
            more, after = page.more, f"{self._repositories}{_beyond(last)}"

    @property
    def literal(self) -> str:
        """What every name that is meant begins with."""
        return _GLOB.split(self.names, maxsplit=1)[0]

    def means(self, name: str) -> bool:
        """Whether the glob means this repository."""
        return fnmatchcase(name, self.names)

    async def find(self, name: Name, kind: Kind, digest: Digest) -> Link | None:
        """The link of one blob or manifest, or None. Raises StorageError."""
        folder = "_layers" if kind is Kind.BLOB else "_manifests/revisions"
        key = f"{self._repositories}{name}/{folder}/{digest.replace(':', '/')}/link"
        try:
            return _link(await self._driver.stat(key), name, kind, digest)
        except NotFound:
            return None

    async def has_tag(self, name: Name, tag: Tag) -> bool:
        """Whether there is this tag now, whatever a listing said. Raises StorageError."""
        try:
            await self._driver.stat(f"{self._repositories}{name}/_manifests/tags/{tag}/current/link")
        except NotFound:
            return False
        return True

    async def target(self, link: Link) -> Digest:
        """The digest that a link holds. Raises Garbled, NotFound, StorageError."""
        if link.exact and link.kind is not Kind.TAG:
            return Digest(link.what)
        data = await self._driver.get(link.key)
        try:
            return parse_digest(data.data[:_LONGEST_LINK].decode("ascii").strip())
        except (DigestInvalid, UnicodeDecodeError):
            raise Garbled("its link file holds no digest") from None

    async def bytes_of(self, digest: Digest) -> Entry:
        """Where the bytes of a blob are, with size and version. Raises NotFound, StorageError."""
        return await self._driver.stat(keys.data(keys.adopted(digest, 0, self.root).uuid))

    async def manifest(self, digest: Digest) -> bytes:
        """The bytes of a manifest, not yet verified. Raises Garbled, NotFound, StorageError."""
        key = keys.data(keys.adopted(digest, 0, self.root).uuid)
        async with self._driver.open(key) as reader:
            if reader.size > MAX_BYTES:
                raise Garbled(f"it is larger than any manifest: {reader.size} bytes")
            return b"".join([chunk async for chunk in reader])

    def _read(self, entry: Entry, odd: Odd) -> Link | None:
        name, _, rest = entry.key.removeprefix(self._repositories).partition("/_")
        match rest.split("/"):
            case ["layers", algorithm, hexadecimal, "link"]:
                kind, what = Kind.BLOB, f"{algorithm}:{hexadecimal}"
            case ["manifests", "revisions", algorithm, hexadecimal, "link"]:
                kind, what = Kind.MANIFEST, f"{algorithm}:{hexadecimal}"
            case ["manifests", "tags", tag, "current", "link"]:
                kind, what = Kind.TAG, tag
            case _:
                return None
        try:
            return _link(entry, parse_name(name), kind, parse_tag(what) if kind is Kind.TAG else parse_digest(what))
        except NameInvalid:
            odd(name, "", "this is no name of a repository here")
        except RegistryError:
            odd(name, f"{kind.name.lower()} {what}", "this is none")
        return None


def _link(entry: Entry, name: Name, kind: Kind, what: Digest | Tag) -> Link:
    # MinIO's and S3's versions of small objects are MD5 sums: then the file need not be read. Elsewhere it is.
    known = hashlib.md5(what.encode(), usedforsecurity=False).hexdigest()
    version = hashlib.sha256(entry.version.encode()).hexdigest()[:16]
    return Link(name, kind, what, version, entry.key, entry.version.strip('"') == known)


def _beyond(last: str) -> str:
    """Where the listing goes on after this file: behind unfinished uploads and the history of a tag, which may be long."""
    name, _, rest = last.partition("/_")
    found = _LONG.match(rest)
    return f"{name}/_{found[0]}{_LAST}" if found else last

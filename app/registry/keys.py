"""The bucket, key by key. Nothing else in the program spells a key.

::

    data/<uuid>                                                   bytes of one copy of a blob; written once
    [<root>/]docker/registry/v2/blobs/<alg>/<xx>/<hex>/data       bytes that CNCF Distribution wrote: only ever read
    repositories/<R>/_blobs/<alg>/<hex>/<uuid>.<size>             a link: R holds this blob, and there are its bytes
    blobs/<alg>/<hex>/<uuid>.<size>/<R escaped>                   derived from links, written before them
    repositories/<R>/_manifests/<alg>/<hex>/<nonce>.<media type>  manifest bytes, exact
    repositories/<R>/_tags/<tag>                                  digest, nonce, media type, size, when, by whom
    repositories/<R>/_referrers/<alg>/<hex>/<alg>-<hex>.<nonce>   descriptor of a referrer, written before its manifest
    repositories/<R>/_deletions/<any>                             a manifest was deleted here once: tags may dangle
    repositories/<R>/_pulls/<alg>/<hex>                           empty; its age says when a cached manifest was last pulled
    catalog/<R in one segment>                                    one key a repository
    uploads/<id>/state, .../piece-*, .../multipart-*              an upload that needs memory
    upkeep/keys/<random>                                          secrets that sign upload locations
    upkeep/adoptions/<root, or !>/<R>/_manifests/<alg>/<hex>      empty: this manifest was taken over from Distribution
    upkeep/adoptions/<root, or !>/<R>/_tags/<tag>/<version>       empty: this tag was, when its link there was of that version
    upkeep/intents/<random>                                       copies that a publication is about to need
    upkeep/leases/<name>                                          which replica does something alone, and where it is
    upkeep/pins/<hash>, .../<hash>.images                         what is kept here, whole and fresh; what its globs meant
    upkeep/reports/<kind>/<time>-<random>                         what a run of upkeep did
    upkeep/tombstones/<uuid>/<R escaped, or !>/<random>           a copy (or one link to it) about to be deleted
    upkeep/quarantine/<uuid, or nonce.media type>                 bytes that are not what their key says: why, or themselves

The copy `adopted![<root>!]<alg>!<hex>` is one that Distribution wrote, where it lies: its links and tombstones go, its bytes
never do. Names map to keys one to one, no key is a folder of another, and what is paged lies flat in one folder: MinIO drops keys
from a page that begins inside a folder beside others whose names begin with its own. A name is used once; only tags,
`uploads/<id>/state`, and links and derived keys, which are empty, are written again.
"""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from app.oci.digests import Digest
from app.oci.manifests import MINIO_FOLDER
from app.oci.names import Name
from app.oci.references import Tag

DATA: Final = "data/"
HOLDERS: Final = "blobs/"
REPOSITORIES: Final = "repositories/"
UPLOADS: Final = "uploads/"
CATALOG: Final = "catalog/"
INTENTS: Final = "upkeep/intents/"
TOMBSTONES: Final = "upkeep/tombstones/"
SIGNING_KEYS: Final = "upkeep/keys/"
LEASES: Final = "upkeep/leases/"
PINS: Final = "upkeep/pins/"
REPORTS: Final = "upkeep/reports/"
PROBES: Final = "upkeep/probe/"
"""What drivers try a store with; a process that was killed leaves some."""
QUARANTINE: Final = "upkeep/quarantine/"
ADOPTIONS: Final = "upkeep/adoptions/"
DISTRIBUTION: Final = "docker/registry/v2/"
"""What CNCF Distribution's storage driver keeps, below its root directory."""
_ADOPTED: Final = "adopted"
_SHIELD: Final = "!"
"""Ends the key of a tag that MinIO would otherwise list as a folder."""
_FLAT: Final = str.maketrans("-./", "+,-")
"""Makes one segment of a name and keeps the order: `- . /` become the three characters before them."""
_DEEP: Final = str.maketrans("+,-", "-./")
EVERYWHERE: Final = "!"
"""The scope of a tombstone that means the copy itself, in every repository."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One physical copy of a blob: its bytes are `data(uuid)`, `size` of them."""

    uuid: str
    size: int

    @property
    def adopted(self) -> bool:
        """Whether CNCF Distribution wrote the bytes: they lie in its layout, and are never deleted from here."""
        return self.uuid.startswith(f"{_ADOPTED}!")

    @property
    def name(self) -> str:
        """As it stands in keys."""
        return f"{self.uuid}.{self.size}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored manifest of a repository: each push that stores it makes a nonce of its own."""

    digest: Digest
    nonce: str
    media_type: str
    size: int


def fresh() -> str:
    """A name that was never used."""
    return secrets.token_hex(16)


def adopted(digest: Digest, size: int, root: str = "") -> Copy:
    """The copy that CNCF Distribution wrote below the folder `root` (its `rootdirectory`; no slash at either end)."""
    algorithm, _, hexadecimal = digest.partition(":")
    return Copy("!".join([_ADOPTED, *(root.split("/") if root else []), algorithm, hexadecimal]), size)


def data(uuid: str) -> str:
    """The key of a copy's bytes."""
    kind, *root, algorithm, hexadecimal = uuid.split("!") if uuid.startswith(f"{_ADOPTED}!") else ("", "", "")
    if not kind:
        return f"{DATA}{uuid}"
    return "/".join([*root, f"{DISTRIBUTION}blobs/{algorithm}/{hexadecimal[:2]}/{hexadecimal}/data"])


def adoptions(root: str) -> str:
    """The folder of what is remembered of the takeover of Distribution's layout below the folder `root`."""
    return f"{ADOPTIONS}{root.replace('/', '!') or '!'}/"


def adopted_manifest(root: str, name: Name, digest: Digest) -> str:
    """The key that says that this manifest was taken over once, whatever became of it here."""
    return f"{adoptions(root)}{name}/_manifests/{_folder(digest)}"


def adopted_tag(root: str, name: Name, tag: Tag, version: str = "") -> str:
    """The key that says so of a tag, whose link was then of this version; without one, the folder of all versions."""
    return f"{adoptions(root)}{name}/_tags/{tag}{_SHIELD if tag.endswith(MINIO_FOLDER) else ''}/{version}"


def adoption(key: str) -> tuple[Name, Digest | Tag, str]:
    """The repository, the manifest or tag, and the version ("" of a manifest) that such a key names."""
    name, _, rest = key.removeprefix(ADOPTIONS).partition("/")[2].partition("/_")
    kind, *parts = rest.split("/")
    if kind == "manifests":
        return Name(name), Digest(":".join(parts)), ""
    return Name(name), Tag(parts[0].removesuffix(_SHIELD)), parts[1]


def repositories(first: str) -> str:
    """The folder of the repositories whose first segment is `first`."""
    return f"{REPOSITORIES}{first}/"


def placed(key: str) -> tuple[Name, str]:
    """The repository whose folder a key below REPOSITORIES lies in, and which of its folders: `blobs`, `tags`, ...

    Raises ValueError for a key that is not of the registry's making.
    """
    name, found, rest = key.removeprefix(REPOSITORIES).partition("/_")
    if not found:
        raise ValueError(key)
    return Name(name), rest.partition("/")[0]


def digest_below(key: str) -> Digest:
    """The digest whose folder a key below one of a repository's folders, or below HOLDERS, lies in.

    Raises ValueError or IndexError for a key that is not of the registry's making.
    """
    rest = key.partition("/_")[2] if key.startswith(REPOSITORIES) else key
    algorithm, hexadecimal = rest.split("/", 3)[1:3]
    return Digest(f"{algorithm}:{hexadecimal}")


def links(name: Name, digest: Digest | None = None) -> str:
    folder = f"{_folder(digest)}/" if digest else ""
    return f"{REPOSITORIES}{name}/_blobs/{folder}"


def link(name: Name, digest: Digest, copy: Copy) -> str:
    return f"{links(name, digest)}{copy.name}"


def copy_of(link_key: str) -> Copy:
    """The copy that a link's key, or a holder's folder, names."""
    uuid, _, size = link_key.rpartition("/")[2].rpartition(".")
    return Copy(uuid, int(size))


def holders(digest: Digest) -> str:
    return f"{HOLDERS}{_folder(digest)}/"


def holders_of(digest: Digest, copy: Copy) -> str:
    return f"{holders(digest)}{copy.name}/"


def holder(digest: Digest, copy: Copy, name: Name) -> str:
    return f"{holders_of(digest, copy)}{escape(name)}"


def holding(key: str) -> tuple[Copy, Name]:
    """The copy and the repository that a holder's key names."""
    folder, _, name = key.rpartition("/")
    return copy_of(folder), Name(name.replace("!", "/"))


def manifests(name: Name, digest: Digest | None = None) -> str:
    folder = f"{_folder(digest)}/" if digest else ""
    return f"{REPOSITORIES}{name}/_manifests/{folder}"


def manifest(name: Name, entry: Entry) -> str:
    return f"{manifests(name, entry.digest)}{entry.nonce}.{entry.media_type.replace('/', ',')}"


def entry_of(key: str, size: int) -> Entry:
    """The manifest that a key names; `size` in bytes comes from the listing."""
    algorithm, hexadecimal, last = key.rsplit("/", 3)[1:]
    nonce, _, media_type = last.partition(".")
    return Entry(Digest(f"{algorithm}:{hexadecimal}"), nonce, media_type.replace(",", "/"), size)


def tags(name: Name) -> str:
    return f"{REPOSITORIES}{name}/_tags/"


def tag(name: Name, tag: Tag) -> str:
    return f"{tags(name)}{tag}{_SHIELD if tag.endswith(MINIO_FOLDER) else ''}"


def tagged(key: str) -> Tag:
    """The tag that a key names."""
    return Tag(key.rpartition("/")[2].removesuffix(_SHIELD))


def referrers(name: Name, subject: Digest) -> str:
    return f"{REPOSITORIES}{name}/_referrers/{_folder(subject)}/"


def referrer(name: Name, subject: Digest, digest: Digest, nonce: str) -> str:
    return f"{referrers(name, subject)}{digest.replace(':', '-')}.{nonce}"


def referring(key: str) -> tuple[Digest, str]:
    """The referrer's digest and the nonce of its manifest."""
    digest, _, nonce = key.rpartition("/")[2].partition(".")
    return Digest(digest.replace("-", ":")), nonce


def pull(name: Name, digest: Digest) -> str:
    """The key whose age says when this manifest was last pulled."""
    return f"{REPOSITORIES}{name}/_pulls/{_folder(digest)}"


def fetch_lease(digest: Digest) -> str:
    """The lease of the transfer of one blob."""
    return f"{LEASES}fetches/{digest.replace(':', '-')}"


def deletions(name: Name) -> str:
    return f"{REPOSITORIES}{name}/_deletions/"


def catalog(name: Name) -> str:
    return f"{CATALOG}{name.translate(_FLAT)}"


def catalogued(key: str) -> Name:
    """The repository that a catalog key names."""
    return Name(key.removeprefix(CATALOG).translate(_DEEP))


def upload(upload_id: str) -> str:
    """The folder of an upload: the scratch of its writer."""
    return f"{UPLOADS}{upload_id}/"


def upload_state(upload_id: str) -> str:
    return f"{upload(upload_id)}state"


def tombstones(copy: Copy) -> str:
    return f"{TOMBSTONES}{copy.uuid}/"


def tombstone(copy: Copy, scope: str) -> str:
    """A name for a new tombstone; `scope` is an escaped repository name, or EVERYWHERE.

    Each is used once: who ends an old tombstone must not end one that somebody has just written.
    """
    return f"{tombstones(copy)}{scope}/{fresh()}"


def buried(key: str) -> tuple[str, str]:
    """The copy's uuid and the scope that a tombstone's key names."""
    uuid, _, rest = key.removeprefix(TOMBSTONES).partition("/")
    return uuid, rest.partition("/")[0]


def upload_of(key: str) -> str:
    """The folder of the upload whose key this is."""
    return upload(key.removeprefix(UPLOADS).partition("/")[0])


def reports(kind: str) -> str:
    """The folder of the reports of a kind of run."""
    return f"{REPORTS}{kind}/"


def report(kind: str, at: float) -> str:
    """A new report's key; `at` in seconds since 1970, so that key order is time order."""
    return f"{reports(kind)}{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}-{fresh()[:8]}"


def quarantine(copy: Copy) -> str:
    """The note of a copy whose bytes are not what its links say; nothing links it, and its bytes stay for a while."""
    return f"{QUARANTINE}{copy.uuid}"


def quarantined_manifest(entry: Entry) -> str:
    """Where the bytes of a manifest are kept that do not hash to its digest."""
    return f"{QUARANTINE}{entry.nonce}.{entry.media_type.replace('/', ',')}"


def escape(name: Name) -> str:
    """A repository name as one segment."""
    return name.replace("/", "!")


def _folder(digest: Digest) -> str:
    return digest.replace(":", "/")

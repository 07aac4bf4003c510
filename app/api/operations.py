"""What people know of an endpoint beside its path and its handler, and all that they know of those below `/v2`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.api.pagination import MOST
from app.api.paths import Kind
from app.oci import errors, manifests
from app.oci.digests import ALGORITHMS
from app.oci.errors import RegistryError
from app.oci.names import MAX_LENGTH

Schema = dict[str, Any]

_BYTES: Final = "application/octet-stream"
JSON: Final = "application/json"
_MANIFEST_TYPES: Final = (
    manifests.OCI_MANIFEST,
    manifests.OCI_INDEX,
    manifests.DOCKER_MANIFEST,
    manifests.DOCKER_LIST,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A success: what it means, its headers, and the schema of its body by media type."""

    text: str
    headers: str = ""
    body: Mapping[str, Schema] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the query that has its meaning at one endpoint alone."""

    text: str
    schema: Schema
    required: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error that is none of the specification's, as the classes of `oci.errors` say theirs."""

    code: str
    status: int
    text: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What people know of an endpoint beside its path, its method and its handler's docstring.

    `parameters` are keys of PARAMETERS, `query` has those of this endpoint alone; `failures` are schemas of bodies that say
    more than errors, by status; `right` is the action that the caller needs, where no code says it.
    """

    answers: Mapping[int, Answer]
    parameters: str = ""
    errors: tuple[type[RegistryError], ...] = ()
    body: Mapping[str, Schema] = field(default_factory=dict)
    body_required: bool = False
    query: Mapping[str, Parameter] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    failures: Mapping[int, Schema] = field(default_factory=dict)
    right: str = ""


def ref(name: str) -> Schema:
    """A reference to one of the document's schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


BINARY: Final[Schema] = {"type": "string", "format": "binary"}
_BINARY: Final[Mapping[str, Schema]] = {_BYTES: BINARY}
_MANIFEST: Final[Mapping[str, Schema]] = {media_type: ref("Manifest") for media_type in _MANIFEST_TYPES}
_STANDING: Final = "Location Range Docker-Upload-UUID"
_WITH_BODY: Final = (errors.TooSlow, errors.EncodingUnsupported, errors.StoreFull)
_CHUNK: Final = (errors.BlobUploadInvalid, errors.SizeInvalid, errors.BlobUploadUnknown, errors.RangeInvalid)
_REFERENCE: Final = (errors.TagInvalid, errors.DigestInvalid, errors.ManifestUnknown)
_BLOB: Final = (errors.DigestInvalid, errors.BlobUnknown)
_SEEN: Final = "Docker-Content-Digest ETag"

OPERATIONS: Final[Mapping[tuple[Kind, str], Operation]] = {
    (Kind.BASE, "GET"): Operation(
        {200: Answer("A registry, and the caller is known.", body={JSON: {"type": "object"}})}
    ),
    (Kind.CATALOG, "GET"): Operation(
        {200: Answer("A page of names.", "Link", {JSON: ref("Repositories")})},
        "n last",
        (errors.PaginationInvalid, errors.NameInvalid),
        right="`catalog`; repositories that the caller may not pull are left out",
    ),
    (Kind.BLOB, "HEAD"): Operation(
        {200: Answer("The blob is here.", f"Content-Length {_SEEN} Accept-Ranges")}, errors=_BLOB
    ),
    (Kind.BLOB, "GET"): Operation(
        {
            200: Answer("The bytes.", f"{_SEEN} Accept-Ranges", _BINARY),
            206: Answer("The range that was asked for.", f"Content-Range {_SEEN} Accept-Ranges", _BINARY),
            304: Answer("The client has it already.", "ETag"),
            307: Answer("The store serves it; only where `storage.s3.redirect` is on.", f"Location {_SEEN}"),
        },
        "Range If-Range If-None-Match",
        (*_BLOB, errors.RangeInvalid),
    ),
    (Kind.BLOB, "DELETE"): Operation({202: Answer("Deleted.")}, errors=(*_BLOB, errors.StillNeeded)),
    (Kind.MANIFEST, "HEAD"): Operation(
        {200: Answer("The manifest is here.", f"Content-Length Content-Type {_SEEN}")}, errors=_REFERENCE
    ),
    (Kind.MANIFEST, "GET"): Operation(
        {
            200: Answer("The manifest, byte for byte.", _SEEN, _MANIFEST),
            304: Answer("The client has it already.", _SEEN),
        },
        "If-None-Match",
        _REFERENCE,
    ),
    (Kind.MANIFEST, "PUT"): Operation(
        {201: Answer("Stored, durable and visible.", "Location Docker-Content-Digest OCI-Subject OCI-Tag")},
        "tag",
        (
            errors.TagInvalid,
            errors.DigestInvalid,
            errors.ManifestInvalid,
            errors.ManifestBlobUnknown,
            errors.TooLarge,
            *_WITH_BODY,
        ),
        _MANIFEST,
        body_required=True,
    ),
    (Kind.MANIFEST, "DELETE"): Operation({202: Answer("Deleted.")}, errors=_REFERENCE),
    (Kind.UPLOADS, "POST"): Operation(
        {
            201: Answer("Mounted, or stored from this request's body.", "Location Docker-Content-Digest"),
            202: Answer("An upload has begun; also the answer to a mount that cannot be.", _STANDING),
        },
        "mount from digest-query digest-algorithm",
        (errors.DigestInvalid, *_WITH_BODY),
        _BINARY,
        right="`push` on the repository, and to mount, `pull` on the other one",
    ),
    (Kind.UPLOAD, "GET"): Operation(
        {204: Answer("Where it stands.", _STANDING)}, "_state", (errors.BlobUploadUnknown,)
    ),
    (Kind.UPLOAD, "PATCH"): Operation(
        {202: Answer("The bytes are taken; go on at the new Location.", _STANDING)},
        "_state Content-Range",
        (*_CHUNK, *_WITH_BODY),
        _BINARY,
    ),
    (Kind.UPLOAD, "PUT"): Operation(
        {201: Answer("The blob is stored.", "Location Docker-Content-Digest")},
        "_state digest-query Content-Range",
        (errors.DigestInvalid, *_CHUNK, *_WITH_BODY),
        _BINARY,
    ),
    (Kind.UPLOAD, "DELETE"): Operation({204: Answer("Cancelled.")}, "_state", (errors.BlobUploadUnknown,)),
    (Kind.TAGS, "GET"): Operation(
        {200: Answer("A page of tags.", "Link", {JSON: ref("Tags")})},
        "n last",
        (errors.PaginationInvalid, errors.TagInvalid, errors.NameUnknown),
    ),
    (Kind.REFERRERS, "GET"): Operation(
        {200: Answer("An index.", "Link OCI-Filters-Applied", {manifests.OCI_INDEX: ref("Manifest")})},
        "artifactType last",
        (errors.DigestInvalid,),
    ),
}
"""One for each endpoint; HEAD has its own only where it answers other headers than GET."""

ALWAYS: Final = (errors.Unauthorized, errors.Denied, errors.TooManyRequests, RegistryError, errors.Unavailable)
"""What any request may be answered."""

_DIGEST: Final[Schema] = {"type": "string", "examples": ["sha256:" + "0" * 64]}
TEXT: Final[Schema] = {"type": "string"}

PARAMETERS: Final[Mapping[str, tuple[str, str, Schema]]] = {
    "name": ("path", "Repository, of any depth: `library/alpine`.", {"type": "string", "maxLength": MAX_LENGTH}),
    "digest": ("path", f"Digest: {' or '.join(ALGORITHMS)}, a colon, lower-case hex.", _DIGEST),
    "reference": ("path", "A tag, or a digest.", TEXT),
    "upload": ("path", "Id of an upload; take the whole Location, which is signed.", TEXT),
    "n": ("query", f"Entries of a page, {MOST} at most.", {"type": "integer", "minimum": 0, "default": MOST}),
    "last": ("query", "The last entry of the page before; the Link of that page has it.", TEXT),
    "artifactType": ("query", "Only referrers of this type.", TEXT),
    "mount": ("query", "Digest of a blob to take from another repository instead of uploading it.", _DIGEST),
    "from": ("query", "The repository to mount from; any that the caller may pull when it is left out.", TEXT),
    "digest-query": ("query", "Digest of the blob; on POST the whole blob is this request's body.", _DIGEST),
    "digest-algorithm": ("query", "Algorithm of the digest to come.", {"type": "string", "enum": list(ALGORITHMS)}),
    "tag": ("query", "Tags to set as well, with a reference that is a digest.", {"type": "array", "items": TEXT}),
    "_state": ("query", "State of the upload, as its Location has it.", TEXT),
    "Range": ("header", "One range of bytes: `bytes=0-99`, `bytes=100-`, `bytes=-100`.", TEXT),
    "If-Range": ("header", "An ETag: the range counts only while the blob has it.", TEXT),
    "If-None-Match": ("header", "An ETag: 304 when it still holds.", TEXT),
    "Content-Range": ("header", "First and last byte of this chunk, `0-99`; without it the body is a stream.", TEXT),
}
"""Where a parameter stands, what it says, and its schema; `-query` sets one apart from its namesake in the path."""

HEADERS: Final[Mapping[str, str]] = {
    "Accept-Ranges": "`bytes`.",
    "Allow": "The methods of this path.",
    "Content-Disposition": "A name for the file.",
    "Content-Length": "Size in bytes.",
    "Content-Range": "First and last byte, and the whole size.",
    "Content-Type": "The media type with which it was pushed.",
    "Docker-Content-Digest": "Digest of the content.",
    "Docker-Upload-UUID": "Id of the upload.",
    "ETag": "The digest, quoted.",
    "Link": 'The next page, `rel="next"`, where there is one.',
    "Location": "Where it is, or where to go on; relative to this server, except for a redirect to the store.",
    "OCI-Filters-Applied": "`artifactType`, where that was asked for.",
    "OCI-Subject": "Digest of the manifest's subject, where it has one.",
    "OCI-Tag": "Each tag that was set by `?tag=`.",
    "Range": "`0-` and the last byte received.",
    "Retry-After": "Seconds to wait.",
    "WWW-Authenticate": "The Basic challenge.",
}
"""What each header of an answer says."""

ERROR_HEADERS: Final[Mapping[tuple[Kind | None, int], str]] = {
    (None, 401): "WWW-Authenticate",
    (None, 405): "Allow",
    (None, 429): "Retry-After",
    (None, 503): "Retry-After",
    (Kind.BLOB, 416): "Content-Range",
    (Kind.UPLOAD, 416): _STANDING,
}
"""Headers of failures, by status, and by kind of path where it matters."""

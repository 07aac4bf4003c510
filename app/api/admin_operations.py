"""What people know of each endpoint below `/api/v1/`, beside its path: parameters, answers, errors, the action it takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.api.exports import Exports
from app.api.imports import Imports
from app.api.operations import BINARY, JSON, TEXT, Answer, Operation, Parameter, Refusal, Schema, ref
from app.oci import errors

ARCHIVE_INVALID: Final = Refusal("ARCHIVE_INVALID", 400, "the archive cannot be used")
EXPORT_INVALID: Final = Refusal("EXPORT_INVALID", 400, "this cannot be exported")
REFUSALS: Final = (ARCHIVE_INVALID, EXPORT_INVALID)
"""Errors that archives have and the specification has not."""

_TAR: Final = "application/x-tar"
_PLAIN: Final = "text/plain"
_LIST: Final[Schema] = {"type": "array", "items": TEXT}
_FLAG: Final[Schema] = {"type": "boolean", "default": False}
_BODY: Final = (errors.TooLarge, errors.TooSlow, errors.EncodingUnsupported)


@dataclass(frozen=True, slots=True)
class AdminEndpoint:
    """What answers one method of one path, and what people know of it."""

    handle: Callable[..., Any]
    known: Operation


_IMPORT: Final = Operation(
    {200: Answer("All of it was imported, or would be.", body={JSON: ref("Imported")})},
    errors=(errors.SizeInvalid, errors.StoreFull, *_BODY),
    refusals=(ARCHIVE_INVALID,),
    failures={400: ref("NotImported")},
    body={_TAR: BINARY, "application/gzip": BINARY, "application/octet-stream": BINARY},
    body_required=True,
    right="`admin` on each repository that is written. An image for another one is not imported, and the answer says so",
    query={
        "name": Parameter("What the image is called here, whatever the archive says: `team/app:v1`.", TEXT),
        "prefix": Parameter("Put before the names of all images.", TEXT),
        "keep_host": Parameter("Keep the registry in names also where it is no upstream: `quay.io/org/app`.", _FLAG),
        "platform": Parameter("Of images for several platforms, only these: `linux/arm64`.", _LIST),
        "dry_run": Parameter("Say what would be imported, and import nothing.", _FLAG),
    },
)

_EXPORT_ERRORS: Final = (
    errors.NameInvalid,
    errors.SizeInvalid,
    errors.ManifestInvalid,
    errors.ManifestUnknown,
    errors.BlobUnknown,
)
_EXPORT_QUERY: Final = {
    "image": Parameter("Images, or globs such as `team/*:v1.*`.", {**_LIST, "minItems": 1}, required=True),
    "format": Parameter(
        "`combined` is read by docker load, ctr, skopeo, podman and the import.",
        {"type": "string", "enum": ["combined", "oci", "docker"], "default": "combined"},
    ),
    "platform": Parameter("Platforms that must be here, or `all`; left out: those that are here.", _LIST),
    "referrers": Parameter("Take signatures, attestations and SBOMs along.", _FLAG),
    "host": Parameter("Put before names without an upstream: `registry.example:5045`.", TEXT),
}
_SENT: Final = {200: Answer("The archive.", "Content-Length Content-Disposition", {_TAR: BINARY})}
_SEES: Final = "`admin` on each repository that is exported. Images in others are not seen"

ADMIN: Final[Mapping[tuple[str, str], AdminEndpoint]] = {
    ("/api/v1/import", "POST"): AdminEndpoint(Imports.post, _IMPORT),
    ("/api/v1/export", "GET"): AdminEndpoint(
        Exports.get,
        Operation(_SENT, errors=_EXPORT_ERRORS, refusals=(EXPORT_INVALID,), right=_SEES, query=_EXPORT_QUERY),
    ),
    ("/api/v1/export", "POST"): AdminEndpoint(
        Exports.post,
        Operation(
            _SENT,
            errors=(*_EXPORT_ERRORS, *_BODY),
            refusals=(EXPORT_INVALID,),
            body={_PLAIN: TEXT},
            body_required=True,
            right=_SEES,
            query=_EXPORT_QUERY,
        ),
    ),
    ("/api/v1/inventory", "GET"): AdminEndpoint(
        Exports.get_inventory,
        Operation(
            {200: Answer("The list, which begins with a line that says what it is.", body={_PLAIN: TEXT})},
            right="`admin` on each repository that is listed",
        ),
    ),
}
"""One for each line of the routes that the wiring gives to `AdminApi`."""


def schemas() -> Schema:
    """The schemas that only these endpoints have."""
    size = {"type": "integer", "minimum": 0}
    image = {
        "image": {**TEXT, "description": "What the archive calls it."},
        "name": {"type": ["string", "null"], "description": "Where it is now."},
        "digest": {"type": ["string", "null"]},
        "bytes": {**size, "description": "Size of all that belongs to it."},
        "new_bytes": {**size, "description": "Those that no repository held which the caller may pull."},
        "left_out": {**size, "description": "Images of an index that were not wanted, or not there."},
        "trouble": {"type": ["string", "null"], "description": "Why nothing of it was published, if that is so."},
    }
    images = {"images": {"type": "array", "items": {"type": "object", "required": list(image), "properties": image}}}
    imported = {"type": "object", "required": ["images"], "properties": images}
    refused = {
        "description": "Where single images are refused, `images` says what became of all of them.",
        "allOf": [ref("Errors"), {"type": "object", "properties": images}],
    }
    return {"Imported": imported, "NotImported": refused}

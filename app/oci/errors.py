"""The errors of the specification, as values; `api` renders them, once.

Our tree::

    RegistryError                 code, message, detail, status
    ├── NameInvalid 400           ├── BlobUnknown 404            ├── Unauthorized 401
    ├── TagInvalid 400            ├── BlobUploadUnknown 404      ├── Denied 403
    ├── DigestInvalid 400         ├── BlobUploadInvalid 400      ├── Unsupported 405
    ├── ManifestInvalid 400       ├── RangeInvalid 416           ├── TooManyRequests 429
    ├── ManifestUnknown 404       ├── SizeInvalid 400            ├── Unavailable 503
    ├── ManifestBlobUnknown 404   ├── TooLarge 413               └── StoreFull 507
    └── NameUnknown 404           ├── PaginationInvalid 400      (and those named where they are used)
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class RegistryError(Exception):
    """One error answer: `code` of the specification, HTTP `status`, and what is safe to tell the client."""

    code: ClassVar[str] = "UNKNOWN"
    status: ClassVar[int] = 500
    text: ClassVar[str] = "unknown error"

    def __init__(
        self, message: str | None = None, *, detail: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message or self.text)
        self.message = message or self.text
        self.detail = detail
        self.headers = dict(headers or {})

    def entries(self) -> Sequence[dict[str, Any]]:
        """The members of the body's `errors` list."""
        entry: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.detail is not None:
            entry["detail"] = self.detail
        return [entry]


class NameInvalid(RegistryError):
    code, status, text = "NAME_INVALID", 400, "invalid repository name"


class TagInvalid(RegistryError):
    code, status, text = "TAG_INVALID", 400, "invalid tag"


class DigestInvalid(RegistryError):
    code, status, text = "DIGEST_INVALID", 400, "provided digest did not match uploaded content"


class ManifestInvalid(RegistryError):
    code, status, text = "MANIFEST_INVALID", 400, "manifest invalid"


class ManifestUnknown(RegistryError):
    code, status, text = "MANIFEST_UNKNOWN", 404, "manifest unknown to registry"


class ManifestBlobUnknown(RegistryError):
    """Names every missing blob or child: one entry each."""

    code, status, text = "MANIFEST_BLOB_UNKNOWN", 404, "manifest references a manifest or blob unknown to registry"

    def __init__(self, digests: Sequence[str]) -> None:
        super().__init__()
        self.digests = list(digests)

    def entries(self) -> Sequence[dict[str, Any]]:
        return [{"code": self.code, "message": self.message, "detail": {"digest": digest}} for digest in self.digests]


class NameUnknown(RegistryError):
    code, status, text = "NAME_UNKNOWN", 404, "repository name not known to registry"


class BlobUnknown(RegistryError):
    code, status, text = "BLOB_UNKNOWN", 404, "blob unknown to registry"


class BlobUploadUnknown(RegistryError):
    code, status, text = "BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry"


class BlobUploadInvalid(RegistryError):
    code, status, text = "BLOB_UPLOAD_INVALID", 400, "blob upload invalid"


class RangeInvalid(RegistryError):
    """A chunk out of order, or a range the content does not have."""

    code, status, text = "RANGE_INVALID", 416, "range not satisfiable"


class SizeInvalid(RegistryError):
    code, status, text = "SIZE_INVALID", 400, "provided length did not match content length"


class TooLarge(RegistryError):
    code, status, text = "SIZE_INVALID", 413, "content too large"


class TooSlow(RegistryError):
    code, status, text = "BLOB_UPLOAD_INVALID", 408, "the body came too slowly"


class EncodingUnsupported(RegistryError):
    code, status, text = "UNSUPPORTED", 415, "bodies must not be encoded"


class PaginationInvalid(RegistryError):
    code, status, text = "PAGINATION_NUMBER_INVALID", 400, "invalid number of results requested"


class Unauthorized(RegistryError):
    code, status, text = "UNAUTHORIZED", 401, "authentication required"


class Denied(RegistryError):
    code, status, text = "DENIED", 403, "requested access to the resource is denied"


class StillNeeded(RegistryError):
    """DELETE of a blob that a manifest or a running push of the repository names."""

    code, status, text = "DENIED", 405, "the blob is needed by a manifest or by a push"


class Unsupported(RegistryError):
    code, status, text = "UNSUPPORTED", 405, "the operation is unsupported"


class TooManyRequests(RegistryError):
    code, status, text = "TOOMANYREQUESTS", 429, "too many requests"


class Unavailable(RegistryError):
    """The store or the server cannot answer now; Retry-After says when to come back."""

    code, status, text = "UNAVAILABLE", 503, "the registry cannot answer now"


class StoreFull(RegistryError):
    code, status, text = "UNAVAILABLE", 507, "the store has no room"


class NotFound(RegistryError):
    """A path that is no part of the API."""

    code, status, text = "UNSUPPORTED", 404, "not found"

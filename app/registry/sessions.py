"""Upload sessions: what a Location says. Its state is signed, so that any replica continues it and POST writes nothing."""

import json
import time
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Self

from app.oci.digests import Digest
from app.oci.errors import BlobUploadUnknown
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket
from app.registry.keys import Copy

_SKEW: Final = 900
"""Seconds by which the clocks of replicas may differ (design, section 5, rule 3)."""


@dataclass(frozen=True, slots=True)
class Session:
    """One upload as its Location tells it. `started` in seconds since 1970, `offset` in bytes.

    Three kinds: *new* (nothing was sent), *whole* (one streamed PATCH became an object, or was found to be held
    already: `digest` is set, and `uuid` unless held), *chunked* (the rest lies in `uploads/<id>/state`).
    """

    id: str
    started: int
    algorithm: str
    digest: Digest | None = None
    uuid: str | None = None
    offset: int = 0
    chunked: bool = False

    @property
    def copy(self) -> Copy | None:
        """The object that a streamed PATCH became."""
        return Copy(self.uuid, self.offset) if self.uuid else None

    def whole(self, digest: Digest, uuid: str | None, size: int) -> Self:
        """After a streamed PATCH."""
        return replace(self, digest=digest, uuid=uuid, offset=size)

    def at(self, offset: int) -> Self:
        """After a chunk."""
        return replace(self, digest=None, uuid=None, offset=offset, chunked=True)


def begin(algorithm: str) -> Session:
    """A session that nothing knows of yet."""
    return Session(keys.fresh(), int(time.time()), algorithm)


def seal(bucket: Bucket, session: Session, name: Name, owner: str | None) -> str:
    """The `_state` of a Location: valid for this repository and this user only."""
    fields = {key: value for key, value in asdict(session).items() if value and key != "id"}
    payload = json.dumps(fields, separators=(",", ":")).encode()
    return bucket.signing.sign(payload, _context(session.id, name, owner))


async def unseal(bucket: Bucket, upload_id: str, token: str, name: Name, owner: str | None) -> Session:
    """The session of a Location. Raises BlobUploadUnknown for one that is forged, another's, or too old."""
    payload = await bucket.signing.verify(token, _context(upload_id, name, owner))
    if payload is None:
        raise BlobUploadUnknown()
    fields: dict[str, Any] = json.loads(payload)
    session = Session(id=upload_id, **fields)
    demand_young(bucket, session)
    return session


def demand_young(bucket: Bucket, session: Session) -> None:
    """Raises BlobUploadUnknown for an upload whose bytes a collector may soon take for nobody's."""
    if not -_SKEW <= time.time() - session.started < bucket.lifetimes.upload:
        raise BlobUploadUnknown("the upload is too old")


def _context(upload_id: str, name: Name, owner: str | None) -> str:
    return f"upload\n{upload_id}\n{name}\n{owner or ''}"

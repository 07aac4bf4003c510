"""Tags: each is one small object, written whole, alive while the manifest it names exists."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from app.oci.digests import parse_digest
from app.oci.errors import Denied, DigestInvalid, ManifestUnknown, NameUnknown
from app.oci.names import Name
from app.oci.references import Tag
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.keys import Entry
from storage import Absent, Condition, ConditionFailed, Entry as Listed, NotFound, Version


@dataclass(frozen=True, slots=True)
class Written:
    """A tag as it lies in the store. `entry` is None for the empty object that a policy leaves in place of a tag."""

    entry: Entry | None
    by: str | None
    version: str


class Tags:
    """The tags of one repository."""

    def __init__(self, bucket: Bucket, name: Name) -> None:
        self._bucket = bucket
        self._name = name

    @translated
    async def list(self, limit: int, last: Tag | None) -> tuple[Sequence[Tag], bool]:
        """Up to `limit` living tags after `last` in byte order, and whether more follow. Raises NameUnknown."""
        prefix = keys.tags(self._name)
        found: list[Tag] = []
        after, more = keys.tag(self._name, last) if last else "", True
        while more and len(found) < limit:
            page = await self._bucket.driver.list(prefix, after=after, limit=limit - len(found))
            found += await self._living(page.entries)
            more = page.more
            after = page.entries[-1].key if page.entries else after
        if not found and not await self._known():
            raise NameUnknown(detail={"name": self._name})
        return found, more

    @translated
    async def delete(self, tag: Tag) -> None:
        """Deletes the tag, not its manifest. Raises ManifestUnknown."""
        if await read(self._bucket, self._name, tag) is None:
            raise ManifestUnknown(detail={"tag": tag})
        await self._bucket.driver.delete(keys.tag(self._name, tag))

    async def _living(self, listed: Sequence[Listed]) -> Sequence[Tag]:
        """Tags can only dangle where a manifest was deleted once; elsewhere the listing is the answer."""
        names = [keys.tagged(entry.key) for entry in listed if entry.size]
        if not names or not (await self._bucket.driver.list(keys.deletions(self._name), limit=1)).entries:
            return names
        alive = await side_by_side(self._is_alive, names)
        return [name for name, lives in zip(names, alive, strict=True) if lives]

    async def _is_alive(self, tag: Tag) -> bool:
        return await read_living(self._bucket, self._name, tag) is not None

    async def _known(self) -> bool:
        try:
            await self._bucket.driver.stat(keys.catalog(self._name))
        except NotFound:
            return False
        return True


async def read(bucket: Bucket, name: Name, tag: Tag) -> Entry | None:
    """What a tag says; None where there is none. Whether that manifest still exists is another question."""
    written = await read_written(bucket, name, tag)
    return written[0] if written else None


async def read_written(bucket: Bucket, name: Name, tag: Tag) -> tuple[Entry, float] | None:
    """As `read`, with the time of the writing, in seconds since 1970 by the writer's clock."""
    try:
        body = (await bucket.driver.get(keys.tag(name, tag))).data
    except NotFound:
        return None
    return parsed(body)


async def read_living(bucket: Bucket, name: Name, tag: Tag) -> tuple[Entry, float] | None:
    """As `read_written`; None where the manifest that the tag names is not here any more."""
    written = await read_written(bucket, name, tag)
    return written if written is not None and await exists(bucket, name, written[0]) else None


async def demand_free(bucket: Bucket, name: Name, tag: Tag, entry: Entry) -> None:
    """Raises Denied when an immutable tag points elsewhere, so that nothing is published for it. `write` settles races."""
    await _condition(bucket, name, tag, entry)


async def write(bucket: Bucket, name: Name, tag: Tag, entry: Entry, by: str | None) -> None:
    """Points a tag at a manifest that exists. Raises Denied when an immutable tag points elsewhere."""
    condition = await _condition(bucket, name, tag, entry)
    try:
        await bucket.driver.put(keys.tag(name, tag), _body(entry, by), condition=condition)
    except ConditionFailed as exc:
        now = await read(bucket, name, tag)
        if now is None or now.digest != entry.digest:
            raise Denied("the tag is immutable", detail={"tag": tag}) from exc


async def look(bucket: Bucket, name: Name, tag: Tag) -> Written | None:
    """The tag with its writer and version; None where there is no object of that name."""
    try:
        found = await bucket.driver.get(keys.tag(name, tag))
    except NotFound:
        return None
    said = parsed(found.data)
    by = json.loads(found.data).get("by") if said else None
    return Written(said[0] if said else None, by, found.version)


async def replace(
    bucket: Bucket, name: Name, tag: Tag, entry: Entry | None, by: str | None, seen: Written | None
) -> bool:
    """Writes a tag only while it is as `look` has seen it, and says whether it was; without an entry, empties it.

    Where the store keeps no conditions it looks once more instead. Raises Denied when an immutable tag points elsewhere.
    """
    now = seen.entry if seen else None
    moves = now is not None and entry is not None and now.digest != entry.digest
    if moves and now is not None and _is_immutable(bucket, name, tag) and await exists(bucket, name, now):
        raise Denied("the tag is immutable", detail={"tag": tag})
    condition: Condition | None = Absent() if seen is None else Version(seen.version)
    if not bucket.capabilities.conditional_put:
        if await look(bucket, name, tag) != seen:
            return False
        condition = None
    try:
        await bucket.driver.put(keys.tag(name, tag), _body(entry, by) if entry else b"", condition=condition)
    except ConditionFailed:
        return False
    return True


async def note_deletion(bucket: Bucket, name: Name) -> None:
    """Remembers, before it happens, that a manifest of this repository was deleted."""
    if not (await bucket.driver.list(keys.deletions(name), limit=1)).entries:
        await bucket.driver.put(f"{keys.deletions(name)}{keys.fresh()}", b"")


async def _condition(bucket: Bucket, name: Name, tag: Tag, entry: Entry) -> Condition | None:
    """What must hold for an immutable tag: it is new, or the manifest that it named is gone."""
    if not _is_immutable(bucket, name, tag):
        return None
    try:
        found = await bucket.driver.get(keys.tag(name, tag))
    except NotFound:
        return Absent()
    now = parsed(found.data)
    if now is not None and now[0].digest != entry.digest and await exists(bucket, name, now[0]):
        raise Denied("the tag is immutable", detail={"tag": tag})
    return Version(found.version)


def _is_immutable(bucket: Bucket, name: Name, tag: Tag) -> bool:
    return any(fnmatchcase(f"{name}:{tag}", pattern) for pattern in bucket.settings.immutable_tags)


def _body(entry: Entry, by: str | None) -> bytes:
    fields = {
        "digest": entry.digest,
        "nonce": entry.nonce,
        "mediaType": entry.media_type,
        "size": entry.size,
        "time": round(time.time(), 3),
        "by": by,
    }
    return json.dumps(fields).encode()


async def exists(bucket: Bucket, name: Name, entry: Entry) -> bool:
    """Whether the manifest that a tag names is still here."""
    try:
        await bucket.driver.stat(keys.manifest(name, entry))
    except NotFound:
        return False
    return True


def parsed(body: bytes) -> tuple[Entry, float] | None:
    """What a tag names, and when it was written.

    None for the empty object that a policy leaves in place of a tag, and for one that decayed: as good as gone.
    """
    try:
        fields: dict[str, Any] = json.loads(body) if body else {}
        entry = Entry(parse_digest(fields["digest"]), str(fields["nonce"]), fields["mediaType"], fields["size"])
        return entry, float(fields["time"])
    except (ValueError, TypeError, KeyError, DigestInvalid):
        return None

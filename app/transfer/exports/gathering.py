"""What an image consists of, as far as it lies here: manifests and blobs, for some platforms, with its signatures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.oci.descriptors import Descriptor
from app.oci.digests import Digest
from app.oci.errors import BlobUnknown, ManifestInvalid, ManifestUnknown
from app.oci.manifests import Manifest
from app.oci.names import Name
from app.oci.platforms import EVERY, choose
from app.oci.references import Tag
from app.quantities import size_text
from app.registry import keys, tags
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.keys import Copy, Entry
from app.registry.manifests import parsed
from app.registry.off_loop import off_loop
from app.registry.publishing import first_linked
from app.registry.referrers import ReferrersOf
from app.registry.stored import first_entry, read_manifest
from app.transfer.exports.choosing import Chosen
from storage import NotFound

_DEPTH: Final = 8
"""Levels of indexes, and signatures of signatures, that are followed."""
_SUBJECT: Final = "vnd.docker.reference.digest"
"""With which BuildKit's attestations name the image of their index that they speak of."""


@dataclass(frozen=True, slots=True)
class Part:
    """One manifest or blob: where it is read, under which digest, and its size in bytes."""

    name: Name
    digest: Digest
    size: int
    manifest: bool


@dataclass(frozen=True, slots=True)
class Child:
    """What an index lists: whether it is here whole, with its own entry of the index."""

    document: Any
    parts: Sequence[Part]
    missing: Sequence[Descriptor]

    @property
    def digest(self) -> Digest:
        return Digest(self.document["digest"])

    @property
    def platform(self) -> str:
        """Such as linux/arm64/v8; empty where the index says none."""
        said = self.document.get("platform")
        if not isinstance(said, dict):
            return ""
        return "/".join(str(said[field]) for field in ("os", "architecture", "variant") if said.get(field))


@dataclass(frozen=True, slots=True)
class Referrer:
    """A signature or the like of an image; `tag` where it has one, as cosign gives them."""

    subject: Chosen
    entry: Entry
    tag: Tag | None

    def __str__(self) -> str:
        return f"{self.subject.called}{self.ending}"

    @property
    def ending(self) -> str:
        """The tag or the digest, with the mark before it."""
        return f":{self.tag}" if self.tag else f"@{self.entry.digest}"


@dataclass(slots=True)
class Image:
    """One image and all of it that goes along. `children` are those of its index that do, `absent` names the others."""

    chosen: Chosen
    parts: list[Part]
    children: list[Child] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    referrers: list[Referrer] = field(default_factory=list)

    @property
    def platforms(self) -> list[str]:
        """Of an index: those that go along."""
        found = dict.fromkeys(child.platform for child in self.children)
        return [platform for platform in found if platform and not platform.startswith("unknown")]


class Gathering:
    """Looks at what is here, and asks no upstream."""

    def __init__(self, bucket: Bucket, platforms: Sequence[str], *, referrers: bool = False) -> None:
        """`platforms` are those of an index that must be here, EVERY for all; none of them: whichever are here whole."""
        self._bucket = bucket
        self._platforms = platforms
        self._referrers = referrers

    @translated
    async def image(self, chosen: Chosen) -> Image:
        """All of an image. Raises BlobUnknown or ManifestUnknown, naming what is missing, and Unavailable."""
        data, manifest = await self._read(chosen.name, chosen.entry)
        found = Image(chosen, [_part(chosen.name, chosen.entry)])
        blobs, missing = await self._blobs(chosen.name, manifest)
        _demand(str(chosen), missing)
        found.parts += blobs
        if manifest.children:
            await self._add_children(found, await _listed(data))
        if self._referrers:
            await self._add_referrers(found)
        return found

    async def _add_children(self, image: Image, listed: Sequence[Any]) -> None:
        chosen, absent = choose(listed, self._platforms or [EVERY])
        if absent:
            offered = ", ".join(_offered(listed)) or "none"
            raise ManifestUnknown(f"{image.chosen}: there is no image for {', '.join(absent)}; there are: {offered}")
        picked = set(chosen)
        strict = bool(self._platforms)
        for document in listed:
            digest, spoken_of = Digest(document["digest"]), _subject(document)
            if digest not in picked and spoken_of not in picked:
                continue
            child = await self._child(image.chosen.name, document)
            if strict and digest in picked:
                _demand(_titled(image, child), child.missing)
            if not child.missing:
                image.children.append(child)
                image.parts += child.parts
            elif child.platform:
                image.absent.append(child.platform)
        if not image.children:
            raise ManifestUnknown(f"{image.chosen}: none of its images is here whole: {', '.join(image.absent)}")

    async def _child(self, name: Name, document: Any, depth: int = 1) -> Child:
        """What an index lists, with all below it; BuildKit's caches list blobs."""
        digest = Digest(document["digest"])
        entry = await first_entry(self._bucket, name, digest)
        if entry is None:
            copy = await first_linked(self._bucket, name, digest)
            missing = [] if copy else [Descriptor(str(document.get("mediaType")), digest, int(document["size"]))]
            return Child(document, [_blob(name, digest, copy)] if copy else [], missing)
        data, manifest = await self._read(name, entry)
        parts, missing = await self._blobs(name, manifest)
        parts.insert(0, _part(name, entry))
        if manifest.children and depth < _DEPTH:
            for below in await _listed(data):
                child = await self._child(name, below, depth + 1)
                parts += child.parts
                missing += child.missing
        return Child(document, parts, missing)

    async def _blobs(self, name: Name, manifest: Manifest) -> tuple[list[Part], list[Descriptor]]:
        """The blobs of a manifest that are here, and those that are not."""
        wanted = list({blob.digest: blob for blob in manifest.blobs}.values())
        copies = await side_by_side(lambda blob: first_linked(self._bucket, name, blob.digest), wanted)
        found = list(zip(wanted, copies, strict=True))
        here = [_blob(name, blob.digest, copy) for blob, copy in found if copy is not None]
        return here, [blob for blob, copy in found if copy is None]

    async def _add_referrers(self, image: Image) -> None:
        """Signatures, attestations and SBOMs that are here whole, and what refers to those."""
        seen = {part.digest for part in image.parts if part.manifest}
        rest = list(seen)
        while rest:
            for referrer in await self._referring(image.chosen, rest.pop()):
                if referrer.entry.digest in seen:
                    continue
                seen.add(referrer.entry.digest)
                document = {"digest": referrer.entry.digest, "size": referrer.entry.size}
                child = await self._child(image.chosen.name, document)
                if not child.missing:
                    image.referrers.append(referrer)
                    image.parts += child.parts
                    rest.append(referrer.entry.digest)

    async def _referring(self, chosen: Chosen, subject: Digest) -> list[Referrer]:
        found: list[Referrer] = []
        last: Digest | None = None
        while True:
            page = await ReferrersOf(self._bucket, chosen.name).list(subject, None, last)
            for item in page.descriptors:
                entry = await first_entry(self._bucket, chosen.name, Digest(item["digest"]))
                found += [Referrer(chosen, entry, None)] if entry else []
            if page.next is None:
                break
            last = page.next
        prefix = f"{keys.tags(chosen.name)}{subject.replace(':', '-', 1)}"
        for listed in (await self._bucket.driver.list(prefix)).entries:
            tag = keys.tagged(listed.key)
            living = await tags.read_living(self._bucket, chosen.name, tag)
            found += [Referrer(chosen, living[0], tag)] if living else []
        return found

    async def _read(self, name: Name, entry: Entry) -> tuple[bytes, Manifest]:
        try:
            data = await read_manifest(self._bucket, name, entry)
            return data, await parsed(data, entry.media_type)
        except NotFound as exc:
            raise ManifestUnknown(f"{name}@{entry.digest}: the manifest was deleted just now") from exc
        except ManifestInvalid as exc:
            raise ManifestInvalid(f"{name}@{entry.digest}: {exc.message}") from exc


async def _listed(index: bytes) -> list[Any]:
    """The entries of an index that was parsed before."""
    document: Any = await off_loop(len(index), json.loads, index)
    listed: list[Any] = document["manifests"]
    return listed


def _demand(title: str, missing: Sequence[Descriptor]) -> None:
    """Raises BlobUnknown."""
    if missing:
        many = "a blob" if len(missing) == 1 else f"{len(missing)} blobs"
        size = size_text(sum(blob.size for blob in missing))
        raise BlobUnknown(f"{title}: {many} ({size}) not here: {', '.join(blob.digest for blob in missing[:3])}")


def _titled(image: Image, child: Child) -> str:
    return f"{image.chosen}, {child.platform}" if child.platform else str(image.chosen)


def _offered(listed: Sequence[Any]) -> list[str]:
    platforms = (Child(document, [], []).platform for document in listed)
    return [platform for platform in dict.fromkeys(platforms) if platform and not platform.startswith("unknown")]


def _subject(document: Any) -> str | None:
    annotations = document.get("annotations")
    said = annotations.get(_SUBJECT) if isinstance(annotations, dict) else None
    return said if isinstance(said, str) else None


def _part(name: Name, entry: Entry) -> Part:
    return Part(name, entry.digest, entry.size, manifest=True)


def _blob(name: Name, digest: Digest, copy: Copy) -> Part:
    return Part(name, digest, copy.size, manifest=False)

"""Exports: what a wish means here, laid out as the archive that will be written."""

from collections.abc import AsyncIterator, Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.errors import StartError
from app.oci.digests import Digest
from app.oci.errors import BlobUnknown, ManifestUnknown, RegistryError
from app.oci.platforms import EVERY
from app.proxy.namespace import Namespace
from app.proxy.pins import own_platform
from app.registry.bucket import Bucket
from app.transfer.exports.choosing import Choosing, Chosen, May
from app.transfer.exports.contents import Contents, Format, completed, contents
from app.transfer.exports.gathering import Gathering, Image
from app.transfer.exports.inventory import inventory, received
from app.transfer.exports.loadable import Loadable, loadable
from app.transfer.exports.tarball import Tarball

__all__ = ["Export", "Exporter", "Format", "Wish"]

_LINES: Final = 1000
_MOST: Final = 1000
"""Images of one download: each takes a few requests to the store before the first byte can go out."""
_FILES: Final = (Format.COMBINED, Format.OCI, Format.DOCKER)
_FETCHES_NOTHING: Final = "export fetches nothing: pull it, or `edge-registry pin add` it, first"


class ExportRefused(RegistryError):
    """What is wished for contradicts itself."""

    code, status, text = "EXPORT_INVALID", 400, "this cannot be exported"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be exported, and how.

    `references` may be globs. `platforms` are those of an index that must be here (EVERY: all of them); none: whichever are
    here. `referrers` takes signatures along, `have` leaves blobs out, `host` goes before the names of what was pushed here,
    and what `may` denies is not seen. More images than `most` are refused.
    """

    references: Sequence[str]
    form: Format = Format.COMBINED
    platforms: Sequence[str] = ()
    referrers: bool = False
    have: Container[Digest] = field(default_factory=frozenset)
    host: str | None = None
    may: May = lambda _: True
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """What will be written; `remarks` are lines for people about what is not in it, or will get lost."""

    images: Sequence[Image]
    contents: Contents
    remarks: Sequence[str]

    def tarball(self) -> Tarball:
        """As one file."""
        return Tarball(self.contents.members)


class Exporter:
    """Exports from one store. It asks no upstream; `upstreams` and `default` tell which names mean what is cached."""

    def __init__(self, bucket: Bucket, upstreams: Sequence[Namespace] = (), default: str | None = None) -> None:
        self._bucket = bucket
        self._upstreams = upstreams
        self._default = default

    async def prepare(self, wish: Wish) -> Export:
        """Looks up all that is wished for. Raises ManifestUnknown or BlobUnknown with a line for each image that is not
        here as it is wanted, ExportRefused, TooManyImages, and Unavailable."""
        platforms = _platforms(wish)
        choosing = Choosing(self._bucket, self._upstreams, self._default, host=wish.host, may=wish.may, most=wish.most)
        chosen = await choosing.all(wish.references)
        gathering = Gathering(self._bucket, platforms, referrers=wish.referrers and wish.form is not Format.DOCKER)
        images: list[Image] = []
        problems: list[str] = []
        for one in chosen:
            try:
                images.append(await gathering.image(one))
            except (BlobUnknown, ManifestUnknown) as exc:
                problems.append(exc.message)
        if problems:
            raise BlobUnknown("\n".join([*problems, _FETCHES_NOTHING] if self._upstreams else problems))
        remarks = [
            f"{image.chosen}: not here, and so left out: {', '.join(image.absent)}" for image in images if image.absent
        ]
        remarks += _namesakes(images)
        found = await self._loadable(images, platforms, wish, remarks)
        return Export(images, contents(self._bucket, images, found, wish.form, wish.have), remarks)

    async def download(
        self, references: Sequence[str], *, form: str, have: AsyncIterator[bytes] | None, **wish: Any
    ) -> Tarball:
        """As `prepare`, for a client that wants a file: `form` is a name of a format, `have` an inventory as it comes."""
        if form not in _FILES:
            raise ExportRefused(f"{form[:40]!r} is no format: there are {', '.join(_FILES)}")
        try:
            known = await received(have) if have else frozenset[Digest]()
        except StartError as exc:
            raise ExportRefused(str(exc)) from exc
        return (await self.prepare(Wish(references, Format(form), have=known, most=_MOST, **wish))).tarball()

    async def inventory(self, may: May = lambda _: True) -> AsyncIterator[bytes]:
        """The lines of what is here, many at once, for `have` elsewhere. Raises StorageError."""
        lines: list[str] = []
        async for line in inventory(self._bucket, may):
            lines.append(f"{line}\n")
            if len(lines) == _LINES:
                yield "".join(lines).encode()
                lines.clear()
        yield "".join(lines).encode()

    async def _loadable(
        self, images: Sequence[Image], platforms: Sequence[str], wish: Wish, remarks: list[str]
    ) -> dict[str, Loadable]:
        """What Docker can have of the images, by their names. Raises ManifestUnknown where that is all that is wanted."""
        if wish.form not in (Format.COMBINED, Format.DOCKER):
            return {}
        platform = platforms[0] if platforms and platforms[0] != EVERY else own_platform()
        found: dict[str, Loadable] = {}
        for image in images:
            known = await loadable(self._bucket, image, platform, else_only=wish.form is Format.COMBINED)
            if known is None:
                remarks.append(_unloadable(image, platform))
                continue
            found[str(image.chosen)] = known
            if known.zstd:
                remarks.append(f"{image.chosen}: layers compressed with zstd: no Docker before 23 can load it")
        if wish.form is Format.DOCKER and len(found) < len(images):
            raise ManifestUnknown("\n".join(remarks))
        return found


def _namesakes(images: Sequence[Image]) -> list[str]:
    """Engines complete `team/app` to the name that Docker Hub's has in full."""
    called: dict[str, list[Chosen]] = {}
    for image in images:
        called.setdefault(completed(str(image.chosen)), []).append(image.chosen)
    return [
        f"{' and '.join(map(str, same))} have one name in container engines, which keep one of them: see --host"
        for same in called.values()
        if len({one.entry.digest for one in same}) > 1
    ]


def _platforms(wish: Wish) -> Sequence[str]:
    """Docker's own format has room for one. Raises ExportRefused."""
    if wish.form is not Format.DOCKER:
        return wish.platforms
    if len(wish.platforms) > 1 or EVERY in wish.platforms:
        raise ExportRefused("the format docker holds one platform; the others hold all of them")
    return wish.platforms or [own_platform()]


def _unloadable(image: Image, platform: str) -> str:
    if not image.children:
        return f"{image.chosen}: no container image, so `docker load` will not see it"
    return f"{image.chosen}: nothing for {platform} here, so `docker load` will not see it; see --platform"

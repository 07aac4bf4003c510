"""Which images of the store references mean, where repository and tag may be globs."""

import re
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Final

from app.oci.digests import Digest, is_digest, parse_digest
from app.oci.errors import ManifestUnknown, NameInvalid, NameUnknown, RegistryError, TagInvalid
from app.oci.names import Name, parse_name
from app.oci.references import Tag, parse_tag
from app.proxy.namespace import Namespace
from app.registry import tags
from app.registry.bucket import Bucket, side_by_side
from app.registry.failures import translated
from app.registry.keys import Entry
from app.registry.registry import Registry
from app.registry.stored import first_entry

_GLOB: Final = re.compile(r"[*?\[]")
_NAMES: Final = re.compile(r"[a-z0-9._/*?\[\]!-]{1,254}")
_TAGS: Final = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,128}")
_SIGNATURE: Final = re.compile(r"sha(256|512)-[0-9a-f]{64,128}(\..*)?")
_PAGE: Final = 1000
_HERE: Final = "localhost"


class TooManyImages(RegistryError):
    """References mean more images than are exported at once."""

    code, status = "EXPORT_INVALID", 400


May = Callable[[Name], bool]
"""Whether whoever exports may have what is in a repository."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One image: `name` is its repository here, `entry` its manifest.

    `called` is what clients call the repository, `home` what another registry of this kind does: its upstream comes first,
    or `localhost` for what was pushed here.
    """

    name: Name
    called: str
    home: str
    reference: Tag | Digest
    entry: Entry

    def __str__(self) -> str:
        """`repository:tag` or `repository@digest`."""
        return f"{self.called}{self.ending}"

    @property
    def ending(self) -> str:
        """The tag or the digest, with the mark before it."""
        return f"{'@' if is_digest(self.reference) else ':'}{self.reference}"


class Choosing:
    """Reads references. A plain name means local content first, then the default upstream's, as in a pull."""

    def __init__(
        self,
        bucket: Bucket,
        upstreams: Iterable[Namespace] = (),
        default: str | None = None,
        *,
        host: str | None = None,
        may: May = lambda _: True,
        most: int | None = None,
    ) -> None:
        """`host` is put before the names of what was pushed here; what `may` denies is not seen; `most` images are chosen."""
        known = list(upstreams)
        self._bucket = bucket
        self._host = host
        self._may = may
        self._most = most
        self._prefixes = {upstream.prefix: upstream.name for upstream in known}
        self._by_name = {name: upstream for upstream in known for name in upstream.names}
        self._by_name |= {name.replace(":", "_"): upstream for name, upstream in self._by_name.items()}
        self._default = self._by_name.get(default) if default else None

    async def all(self, references: Iterable[str]) -> list[Chosen]:
        """What the references mean, each image once, in the order of their names.

        Raises ManifestUnknown with a line for each reference that means nothing here, TooManyImages, and Unavailable.
        """
        found: dict[str, Chosen] = {}
        problems = []
        for text in dict.fromkeys(references):
            try:
                async for chosen in self._meant(text):
                    found[str(chosen)] = chosen
                    if self._most is not None and len(found) > self._most:
                        raise TooManyImages(
                            f"at most {self._most} images at once: name fewer, or use `edge-registry export`"
                        )
            except TooManyImages:
                raise
            except RegistryError as exc:
                if exc.status >= 500:
                    raise
                problems.append(f"{text[:300]}: {exc.message}")
        if problems:
            raise ManifestUnknown("\n".join(problems))
        return [found[title] for title in sorted(found)]

    async def _meant(self, text: str) -> AsyncIterator[Chosen]:
        names, reference = _split(text)
        for candidate in self._candidates(names):
            is_here = False
            async for chosen in self._found(candidate, reference):
                is_here = True
                yield chosen
            if is_here:
                return
        if _GLOB.search(names) or _GLOB.search(reference):
            raise ManifestUnknown("no image here is called so (a name without a tag means `latest`; `:*` is every tag)")
        raise ManifestUnknown("it is not here")

    def _candidates(self, names: str) -> list[str]:
        """The names here that are meant, in the order in which they are looked for. Raises NameInvalid."""
        first, _, rest = names.partition("/")
        upstream = self._by_name.get(first.lower()) if rest else None
        if upstream is not None:
            return [_demand_name(upstream.cached(rest))]
        if ":" in first:
            raise NameUnknown("it begins with no upstream's name")
        host_like = bool(rest) and ("." in first or first == "localhost")
        behind = [] if host_like or self._default is None else [self._default.cached(names)]
        return [_demand_name(candidate) for candidate in (names, *behind)]

    async def _found(self, names: str, reference: str) -> AsyncIterator[Chosen]:
        async for name in self._repositories(names):
            if not self._may(name):
                continue
            if is_digest(reference):
                found = await self._stored(name, Digest(reference))
                if found is not None:
                    yield Chosen(name, *self._called(name), found.digest, found)
                continue
            wanted = await self._tags(name, reference) if _GLOB.search(reference) else [Tag(reference)]
            entries = await side_by_side(partial(self._tagged, name), wanted)
            for tag, entry in zip(wanted, entries, strict=True):
                if entry is not None:
                    yield Chosen(name, *self._called(name), tag, entry)

    async def _repositories(self, names: str) -> AsyncIterator[Name]:
        if not _GLOB.search(names):
            yield Name(names)
            return
        registry, last, more = Registry(self._bucket), None, True
        while more:
            page, more = await registry.catalog(_PAGE, last)
            for name in page:
                last = name
                if fnmatchcase(name, names):
                    yield name

    async def _tags(self, name: Name, pattern: str) -> list[Tag]:
        """Signatures come with what they sign, unless they are asked for."""
        found: list[Tag] = []
        last: Tag | None = None
        more = True
        while more:
            try:
                page, more = await tags.Tags(self._bucket, name).list(_PAGE, last)
            except NameUnknown:
                return found
            last = page[-1] if page else last
            found += [tag for tag in page if fnmatchcase(tag, pattern)]
        return [tag for tag in found if pattern.startswith("sha") or not _SIGNATURE.fullmatch(tag)]

    @translated
    async def _tagged(self, name: Name, tag: Tag) -> Entry | None:
        living = await tags.read_living(self._bucket, name, tag)
        return living[0] if living else None

    @translated
    async def _stored(self, name: Name, digest: Digest) -> Entry | None:
        return await first_entry(self._bucket, name, digest)

    def _called(self, name: Name) -> tuple[str, str]:
        first, _, rest = name.partition("/")
        upstream = self._prefixes.get(first) if rest else None
        if upstream is not None:
            return f"{upstream}/{rest}", f"{upstream}/{rest}"
        return f"{self._host}/{name}" if self._host else name, f"{_HERE}/{name}"


def _split(text: str) -> tuple[str, str]:
    """Names and reference, valid or a glob. Raises TagInvalid, DigestInvalid."""
    path, at, digest = text.strip().partition("@")
    names, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:
        names, tag = path, ""
    if at:
        return names, parse_digest(digest)
    tag = tag or "latest"
    if not _GLOB.search(tag):
        return names, parse_tag(tag)
    if not _TAGS.fullmatch(tag):
        raise TagInvalid("invalid glob over tags")
    return names, tag


def _demand_name(names: str) -> str:
    if not _GLOB.search(names):
        return parse_name(names)
    if not _NAMES.fullmatch(names):
        raise NameInvalid("invalid glob over names")
    return names

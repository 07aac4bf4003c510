"""Selections: what a reference means that an operator gave, where repository and tag may be globs."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from app.oci.digests import is_digest
from app.oci.errors import NameInvalid, NameUnknown, TagInvalid
from app.oci.names import Name, parse_name
from app.oci.references import Tag, parse_reference
from app.proxy.namespace import Namespaces, is_host
from app.proxy.upstreams import Upstream

_GLOB: Final = re.compile(r"[*?\[]")
_NAMES: Final = re.compile(r"[a-z0-9._/*?\[\]!-]{1,254}")
_TAGS: Final = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,128}")
_SIGNATURE: Final = re.compile(r"sha(256|512)-[0-9a-f]{64,128}(\..*)?")


@dataclass(frozen=True, slots=True)
class Selection:
    """`names` is a cached repository or a glob over them, `reference` a tag, a digest, or a glob over tags."""

    upstream: Upstream
    names: str
    reference: str

    def __str__(self) -> str:
        """The one spelling of it, whatever was given."""
        remote = self.names.removeprefix(f"{self.upstream.prefix}/")
        return f"{self.upstream.name}/{remote}{'@' if is_digest(self.reference) else ':'}{self.reference}"

    @property
    def wide(self) -> bool:
        """Whether several repositories may be meant."""
        return bool(_GLOB.search(self.names))

    @property
    def open(self) -> bool:
        """Whether lists of tags say what is meant."""
        return self.wide or bool(_GLOB.search(self.reference))

    def has(self, name: Name) -> bool:
        """Whether a repository is meant."""
        return fnmatchcase(name, self.names)

    def wants(self, tag: Tag) -> bool:
        """Whether a tag is meant. Signatures come with what they sign, unless they are asked for."""
        if _SIGNATURE.fullmatch(tag) and not self.reference.startswith("sha"):
            return False
        return fnmatchcase(tag, self.reference)


class Selector:
    """Reads references: the upstream first, by any of its names; without one, the default upstream's."""

    def __init__(self, upstreams: Iterable[Upstream], default: str | None) -> None:
        known = list(upstreams)
        self._upstreams = Namespaces(known)
        self._default = self._upstreams[default] if default else None
        self._names = ", ".join(upstream.name for upstream in known)

    def parse(self, text: str) -> Selection:
        """The selection. Raises NameUnknown where no upstream is named, NameInvalid, TagInvalid, DigestInvalid."""
        path, at, digest = text.strip().partition("@")
        head, colon, tag = path.rpartition(":")
        if not colon or "/" in tag:
            head, tag = path, ""
        upstream, remote = self._upstream(head, text)
        found = Selection(upstream, upstream.cached(remote), digest if at else tag or "latest")
        _demand_valid(found)
        return found

    def _upstream(self, head: str, text: str) -> tuple[Upstream, str]:
        first, _, rest = head.partition("/")
        upstream = self._upstreams.of_segment(first) if rest else None
        if upstream is not None:
            return upstream, rest
        if self._default is None or is_host(first):
            raise NameUnknown(
                f"it begins with no upstream's name; there are {self._names}", detail={"name": text[:200]}
            )
        return self._default, head


def _demand_valid(selection: Selection) -> None:
    """Raises NameInvalid, TagInvalid, DigestInvalid."""
    names, reference = selection.names, selection.reference
    if not selection.wide:
        parse_name(names)
    elif is_digest(reference) or not _NAMES.fullmatch(names):
        raise NameInvalid(detail={"name": names[:254]})
    if is_digest(reference) or not _GLOB.search(reference):
        parse_reference(reference)
    elif not _TAGS.fullmatch(reference):
        raise TagInvalid(detail={"tag": reference[:128]})

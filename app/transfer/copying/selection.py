"""What to copy, as people write it: a registry, repositories, tags, a digest."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from app.oci.digests import Digest, parse_digest
from app.oci.errors import NameInvalid, TagInvalid
from app.oci.names import Name, parse_name
from app.oci.references import Tag, parse_tag
from app.proxy.settings import HUB

EVERY: Final = "*"
_GLOB: Final = re.compile(r"[*?\[]")
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?|\[[0-9a-f:]+\](?::[0-9]{1,5})?")
_NAMES: Final = re.compile(r"[a-z0-9._/*?\[\]!-]{1,254}")
_TAGS: Final = re.compile(r"[A-Za-z0-9._*?\[\]!-]{1,128}")


@dataclass(frozen=True, slots=True)
class Selection:
    """`host` with its port; `names` a repository of it or a glob; `reference` a tag, a glob of tags, or a digest."""

    host: str
    names: str
    reference: str

    def __str__(self) -> str:
        return f"{self.host}/{self.names}{'@' if self.digest else ':'}{self.reference}"

    @property
    def digest(self) -> Digest | None:
        """The one manifest that is meant, if it was named by digest."""
        return Digest(self.reference) if ":" in self.reference else None

    @property
    def tag(self) -> Tag | None:
        """The one tag that is meant; None for a glob, and for a digest."""
        return None if self.digest or _GLOB.search(self.reference) else Tag(self.reference)

    @property
    def repository(self) -> Name | None:
        """The one repository that is meant; None for a glob, for which the catalog is asked."""
        return None if _GLOB.search(self.names) else Name(self.names)

    def has(self, name: Name) -> bool:
        """Whether a repository of the catalog is meant; `*` stands for slashes too."""
        return fnmatchcase(name, self.names)

    def wants(self, tag: Tag) -> bool:
        """Whether a tag of a list is meant."""
        return fnmatchcase(tag, self.reference)


def parse_selection(text: str) -> Selection:
    """What a person means by `host`, `host/team/*`, `host/repo` (all tags), `host/repo:v1.*` or `host/repo@sha256:...`.

    Docker Hub's short names get their `library/`. Raises NameInvalid, TagInvalid, DigestInvalid.
    """
    path, at, digest = text.strip().removeprefix("docker://").partition("@")
    host, slash, rest = path.partition("/")
    host, rest = host.lower(), rest.rstrip("/")
    if not _is_host(host) or not (slash or "." in host or host.startswith("localhost")):
        raise NameInvalid(
            "it begins with no registry, as docker.io/library/alpine:3 and registry.example:5000 do; the whole of a registry "
            "whose name has no dot is written registry:5000/"
        )
    head, colon, tag = rest.rpartition(":")
    names, tag = (head, tag) if colon else (rest, "")
    if colon and not tag:
        raise TagInvalid(detail={"tag": ""})
    if names and "/" not in names and host in HUB:
        names = f"library/{names}"
    if at:
        return Selection(host, parse_name(names), parse_digest(digest))
    found = Selection(host, names or EVERY, tag or EVERY)
    _demand_valid(found)
    return found


def _is_host(text: str) -> bool:
    """As other clients decide it: a dot, a port, or localhost."""
    return bool(_HOST.fullmatch(text)) and ("." in text or ":" in text or text == "localhost")


def _demand_valid(found: Selection) -> None:
    if found.repository is not None:
        parse_name(found.names)
    elif not _NAMES.fullmatch(found.names):
        raise NameInvalid(detail={"name": found.names[:254]})
    if found.tag is not None:
        parse_tag(found.reference)
    elif not _TAGS.fullmatch(found.reference):
        raise TagInvalid(detail={"tag": found.reference[:128]})

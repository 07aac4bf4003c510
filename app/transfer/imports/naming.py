"""What an image of an archive is called here, so that those who ask for it by its own name find it.

An archive says `docker.io/library/alpine:3`, or `alpine:3`, which means the same. Where docker.io is an upstream, its
repositories lie under its name, and so does this one: clients ask for it through the mirror as ever. Where it is not, the
host is left out: a mirror without upstreams is asked for `library/alpine`, and so are clients that name this registry.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from app.oci.names import Name, parse_name
from app.oci.references import Tag, parse_tag
from app.proxy.namespace import Namespace, Namespaces, is_host
from app.proxy.settings import HUB
from app.transfer.errors import ArchiveRefused, shown
from app.transfer.imports.listed import Listed

_HUB: Final = "docker.io"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Called:
    """Where an image is put, and under which tag; without a tag it can be had by digest alone."""

    name: Name
    tag: Tag | None

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}" if self.tag else self.name


class Naming:
    """The rules."""

    def __init__(
        self,
        upstreams: Iterable[Namespace] = (),
        own: Collection[str] = (),
        *,
        given: str = "",
        prefix: str = "",
        keep_host: bool = False,
    ) -> None:
        """`own` are hosts of this registry itself; `given` is a name for the one image of an archive, `prefix` goes before
        all others; `keep_host` keeps the registry's host where it would be left out."""
        self.given = given
        self.prefix = prefix.strip("/")
        self.keep_host = keep_host
        self._own = own
        self._upstreams = Namespaces(upstreams)

    def called(self, listed: Listed) -> Called | None:
        """What the image is called; None where nobody says. Raises NameInvalid, TagInvalid, ArchiveRefused."""
        head, tag = _split(listed.called)
        if self.given:
            return self._as_given(listed.tag or tag)
        if not listed.called:
            return None
        if not head:
            raise ArchiveRefused(f"{shown(listed.called)} is no name of an image")
        name = self._placed(head)
        if not tag and "@" not in listed.called:
            tag = "latest"
        return self._called(f"{self.prefix}/{name}" if self.prefix else name, tag)

    def is_promised(self, name: Name, tag: Tag) -> bool:
        """Whether the settings of an upstream say that a tag of it never moves."""
        upstream = self._upstreams.of_segment(name.partition("/")[0])
        return upstream is not None and upstream.immutable(name, tag)

    def _as_given(self, tag: str) -> Called:
        head, own_tag = _split(self.given)
        first, _, rest = head.partition("/")
        if rest and self._is_own(first):
            head = rest
        return self._called(head, own_tag or tag or "latest")

    def _called(self, path: str, tag: str) -> Called:
        """A name; below any name of an upstream, where the proxy looks for it."""
        first, slash, rest = path.partition("/")
        upstream = self._upstreams.of_segment(first) if rest else None
        name = upstream.cached(rest) if upstream else f"{first.replace(':', '_')}{slash}{rest}"
        return Called(parse_name(name), parse_tag(tag) if tag else None)

    def _placed(self, head: str) -> str:
        first, _, rest = head.partition("/")
        if not rest or not is_host(first):
            first, rest = _HUB, head
        if self._is_own(first):
            return rest
        upstream = self._upstreams.named(first)
        if upstream is not None and not self.prefix:
            return upstream.cached(rest)
        if first.lower() in HUB:
            first, rest = _HUB, rest if "/" in rest else f"library/{rest}"
        return f"{first.lower().replace(':', '_')}/{rest}" if self.keep_host else rest

    def _is_own(self, host: str) -> bool:
        host = host.lower()
        bare = re.sub(r":[0-9]*$", "", host)
        return host in self._own or (bare in _LOOPBACK and self._upstreams.named(host) is None)


def _split(text: str) -> tuple[str, str]:
    """The name and the tag of a reference, whose digest is left out; either may be empty."""
    path = text.strip().partition("@")[0]
    head, colon, tag = path.rpartition(":")
    return (head, tag) if colon and "/" not in tag else (path, "")

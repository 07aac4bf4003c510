"""What the repositories of an upstream are called, here and there: names alone, without anybody being dialled."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Generic, TypeVar

from app.oci.names import Name
from app.oci.references import Tag
from app.proxy.settings import HUB, UpstreamSettings, names_of


class Namespace:
    """The name space of one upstream."""

    def __init__(self, settings: UpstreamSettings) -> None:
        self.settings = settings
        self.name = settings.name
        self.prefix = settings.name.replace(":", "_")

    @property
    def names(self) -> set[str]:
        """Everything that clients may call it, in lower case."""
        return names_of(self.settings)

    @property
    def hub(self) -> bool:
        """Whether it is Docker Hub, where one-word names stand in `library/`."""
        return self.name in HUB

    def cached(self, remote: str) -> str:
        """The name under which a repository of this upstream lies here; not checked yet."""
        full = f"library/{remote}" if self.hub and "/" not in remote else remote
        return f"{self.prefix}/{full}"

    def remote(self, name: Name) -> str:
        """The upstream's own name of a cached repository; those that stand in for it know it by the same one."""
        return name.removeprefix(f"{self.prefix}/")

    def immutable(self, name: Name, tag: Tag) -> bool:
        """Whether the settings say that a tag of a cached repository never moves.

        Their patterns match the upstream's own name; Docker Hub's short names may be written so.
        """
        remote = self.remote(name)
        spellings = {remote, remote.removeprefix("library/") if self.hub else remote}
        patterns = self.settings.immutable_tags
        return any(fnmatchcase(f"{text}:{tag}", pattern) for pattern in patterns for text in spellings)


N = TypeVar("N", bound=Namespace)


class Namespaces(Generic[N]):
    """All that are configured, found by what they are called."""

    def __init__(self, known: Iterable[N]) -> None:
        self._by_name = {name: namespace for namespace in known for name in namespace.names}
        self._by_folder = {name.replace(":", "_"): namespace for name, namespace in self._by_name.items()}

    def __getitem__(self, name: str) -> N:
        """The one that settings name, which were checked. Raises KeyError."""
        return self._by_name[name]

    def named(self, name: str) -> N | None:
        """The one that has this name, in any case, or alias; None where there is none."""
        return self._by_name.get(name.lower())

    def of_segment(self, first: str) -> N | None:
        """The one whose repositories' names begin with this segment, as clients write it or as it stands in keys."""
        return self.named(first) or self._by_folder.get(first)


def is_host(first: str) -> bool:
    """Whether the first segment of a name looks like a host: then it is nobody's plain name."""
    return "." in first or ":" in first or first == "localhost"

"""What the repositories of an upstream are called, here and there: names alone, without anybody being dialled."""

from app.oci.names import Name
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

"""The registry: repositories by name, and the catalog of them."""

from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

from app.oci.names import Name, parse_name
from app.registry import keys
from app.registry.asked import Asked, MayPull
from app.registry.blobs import Blobs
from app.registry.bucket import Bucket
from app.registry.failures import translated
from app.registry.manifests import Manifests
from app.registry.notes import Notes
from app.registry.referrers import ReferrersOf
from app.registry.tags import Tags
from app.registry.uploads import Uploads


class Repository:
    """One repository. It exists when it has content; naming one costs nothing, so each request gets its own."""

    def __init__(self, bucket: Bucket, name: Name) -> None:
        self._bucket = bucket
        self.name = name
        self.notes = Notes()

    @cached_property
    def blobs(self) -> Blobs:
        return Blobs(self._bucket, self.name)

    @cached_property
    def uploads(self) -> Uploads:
        return Uploads(self._bucket, self.name)

    @cached_property
    def manifests(self) -> Manifests:
        return Manifests(self._bucket, self.name)

    @cached_property
    def tags(self) -> Tags:
        return Tags(self._bucket, self.name)

    @cached_property
    def referrers(self) -> ReferrersOf:
        return ReferrersOf(self._bucket, self.name)


class Repositories(Protocol):
    """Finds the repository that a request means."""

    def find(self, asked: Asked, may_pull: MayPull) -> Repository:
        """The repository, whether or not it has content. What `may_pull` denies is not looked into on the side.

        Raises NameInvalid, or NameUnknown for an upstream that is not configured.
        """
        ...


class Registry:
    """Every repository of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def repository(self, name: Name) -> Repository:
        """A repository, whether or not it has content."""
        return Repository(self._bucket, name)

    def find(self, asked: Asked, may_pull: MayPull) -> Repository:
        """The repository of that name: without upstreams, a name is all there is. Raises NameInvalid."""
        del may_pull
        return Repository(self._bucket, parse_name(asked.name))

    @translated
    async def catalog(self, limit: int, last: Name | None) -> tuple[Sequence[Name], bool]:
        """Up to `limit` names after `last` in byte order, and whether more follow."""
        after = keys.catalog(last) if last else ""
        page = await self._bucket.driver.list(keys.CATALOG, after=after, limit=limit)
        return [keys.catalogued(entry.key) for entry in page.entries], page.more

    @translated
    async def ready(self) -> None:
        """Raises Unavailable when the store cannot be reached."""
        await self._bucket.driver.ready()

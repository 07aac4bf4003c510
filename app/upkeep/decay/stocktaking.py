"""Fills an inventory from the bucket's listings, of all repositories or of some."""

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from app.auth.patterns import translated
from app.oci.names import Name
from app.registry import keys
from app.registry.listing import every
from app.upkeep.decay.inventory import Inventory
from app.upkeep.decay.placing import catalogued, holder, place, uuid_of
from storage import PAGE, Driver, Entry

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Told what is done now (`listing`, `manifests`, ...), how much of it, and of how much; 0 where that is not known."""

FOREIGN: Final = 100
"""Keys of somebody else's making that are remembered by name."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The repositories that are meant: all, or those whose names match a pattern (app/auth/patterns.py)."""

    pattern: str | None = None
    _expression: re.Pattern[str] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Raises ValueError, with a message for the operator, for what is no pattern."""
        if self.pattern is not None:
            object.__setattr__(self, "_expression", translated(self.pattern))

    @property
    def whole(self) -> bool:
        """Whether all are meant."""
        return self.pattern is None

    @property
    def prefix(self) -> str:
        """What the keys of all of them begin with."""
        if self.pattern is None:
            return keys.REPOSITORIES
        plain, wild, _ = self.pattern.partition("*")
        return f"{keys.REPOSITORIES}{plain}{'' if wild else '/_'}"

    def has(self, name: Name) -> bool:
        """Whether a repository is meant."""
        return self._expression is None or self._expression.fullmatch(name) is not None


@dataclass(slots=True)
class Foreign:
    """Keys that are not of the registry's making: how many, and the first of them."""

    number: int = 0
    first: list[str] = field(default_factory=list)

    def take(self, key: str) -> None:
        """One more."""
        self.number += 1
        if len(self.first) < FOREIGN:
            self.first.append(key)


async def take_stock(driver: Driver, inventory: Inventory, scope: Scope, progress: Progress, *, sizes: bool) -> Foreign:
    """Lists the repositories, then what is derived from them and, with `sizes`, the bytes: a request for each thousand keys.

    In this order, what a running push writes is not missed. Of some repositories only their own keys are listed: what else
    there is must be asked for key by key. Raises StorageError.
    """
    stock = _Stock(driver, inventory, scope, progress)
    await stock.repositories()
    if scope.whole:
        await stock.holders()
        await stock.catalog()
        if sizes:
            await stock.bytes()
    await inventory.index()
    return stock.foreign


class _Stock:
    def __init__(self, driver: Driver, inventory: Inventory, scope: Scope, progress: Progress) -> None:
        self.foreign = Foreign()
        self._driver = driver
        self._inventory = inventory
        self._scope = scope
        self._progress = progress
        self._seen = 0

    async def repositories(self) -> None:
        async for page in self._pages(self._scope.prefix):
            found = []
            for entry in page:
                placed = place(entry.key, entry.size)
                if placed is None:
                    self.foreign.take(entry.key)
                elif self._scope.has(placed.name):
                    found.append(placed)
            await self._inventory.place(found)

    async def holders(self) -> None:
        async for page in self._pages(keys.HOLDERS):
            await self._inventory.hold(
                [found for entry in page if (found := self._ours(entry.key, holder)) is not None]
            )

    async def catalog(self) -> None:
        async for page in self._pages(keys.CATALOG):
            found = [self._ours(entry.key, catalogued) for entry in page]
            await self._inventory.catalogue([name for name in found if name is not None])

    async def bytes(self) -> None:
        async for page in self._pages(keys.DATA):
            found = [(self._ours(entry.key, uuid_of), entry.size) for entry in page]
            await self._inventory.weigh([(uuid, size) for uuid, size in found if uuid is not None])

    def _ours(self, key: str, read: Callable[[str], T | None]) -> T | None:
        found = read(key)
        if found is None:
            self.foreign.take(key)
        return found

    async def _pages(self, prefix: str) -> AsyncIterator[Sequence[Entry]]:
        page: list[Entry] = []
        async for entry in every(self._driver, prefix):
            page.append(entry)
            if len(page) == PAGE:
                yield self._counted(page)
                page = []
        yield self._counted(page)

    def _counted(self, page: Sequence[Entry]) -> Sequence[Entry]:
        self._seen += len(page)
        self._progress("listing", self._seen, 0)
        return page

"""Manifests that a listing left out: tags and referrers name them, so each is asked for.

A disk that lost a few bytes makes MinIO leave keys out of listings and answer 500 or 503 for them (app/upkeep/looking.py).
What such a manifest needs looks free, and may be wanted as soon as the disk is mended.
"""

import json
from collections.abc import Sequence
from typing import Final

from app.oci.errors import Unavailable
from app.oci.names import Name
from app.registry import keys
from app.registry.bucket import Bucket, side_by_side
from app.registry.keys import Entry
from app.registry.listing import every
from app.registry.needs import Unreadable
from app.registry.tags import parsed
from app.upkeep.decay.looking import Withheld, asked
from app.upkeep.garbage.survey import AT_ONCE, Survey
from storage import PAGE, NotFound

_LOSING: Final = """
SELECT DISTINCT name FROM candidate JOIN link USING (uuid) JOIN repository ON repository.id = link.repository
"""
_ALONE: Final = "SELECT key FROM garbage WHERE kind = 'referrers'"


class Unlisted:
    """Asks for them once the survey has chosen what goes."""

    def __init__(self, bucket: Bucket, survey: Survey) -> None:
        self._bucket = bucket
        self._survey = survey

    async def learn(self) -> None:
        """Reads every tag of the repositories that would lose copies, and every referrer that would go: a request for each.

        A manifest that is there after all is learnt. Raises Unreadable or Unavailable where the store does not give one, or a
        tag: nobody knows then what is needed. Raises StorageError where the store as a whole fails.
        """
        async for rows in self._survey.rows(_LOSING):
            for (name,) in rows:
                await self._read_tags(Name(name))
        async for rows in self._survey.rows(_ALONE):
            found = await side_by_side(self._referrer, [key for (key,) in rows], most=AT_ONCE)
            for one in found:
                if one is not None:
                    await self._look(*one)

    async def _read_tags(self, name: Name) -> None:
        tags: list[str] = []
        async for entry in every(self._bucket.driver, keys.tags(name)):
            tags.append(entry.key)
            if len(tags) == PAGE:
                await self._look(name, await self._tagged(tags))
                tags = []
        await self._look(name, await self._tagged(tags))

    async def _tagged(self, tags: Sequence[str]) -> list[Entry]:
        said = [parsed(body) for body in await side_by_side(self._body, tags, most=AT_ONCE)]
        return [one[0] for one in said if one is not None]

    async def _referrer(self, key: str) -> tuple[Name, list[Entry]] | None:
        body = await self._body(key)
        try:
            descriptor = json.loads(body)
            entry = Entry(*keys.referring(key), descriptor["mediaType"], descriptor["size"])
            return keys.placed(key)[0], [entry]
        except (ValueError, TypeError, KeyError):
            return None  # deleted since it was listed, or it says nothing

    async def _body(self, key: str) -> bytes:
        try:
            return (await asked(self._bucket, lambda: self._bucket.driver.get(key))).data
        except NotFound:
            return b""
        except Withheld as exc:
            raise Unavailable(f"{key} cannot be read, so what it needs is not known: nothing is deleted") from exc

    async def _look(self, name: Name, entries: Sequence[Entry]) -> None:
        survey = self._survey
        unknown = list(dict.fromkeys(await survey.off_loop(survey.join.unknown, name, entries)))

        async def stands(entry: Entry) -> bool:
            try:
                await asked(self._bucket, lambda: self._bucket.driver.stat(keys.manifest(name, entry)))
            except NotFound:
                return False
            except Withheld as exc:
                raise Unreadable(name, entry.digest) from exc
            return True

        there = await side_by_side(stands, unknown, most=AT_ONCE)
        await survey.learn(name, [entry for entry, is_there in zip(unknown, there, strict=True) if is_there])

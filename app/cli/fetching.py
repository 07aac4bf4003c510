"""Fetching what is pinned, for `edge-registry pin`: some images at once, a line for each that ends."""

import asyncio
from collections.abc import Sequence
from typing import Final

from app.cli import output
from app.cli.progress import Watching, watching
from app.oci.errors import RegistryError
from app.proxy.pins import Image, Pin, Pins, lacking
from app.quantities import size_text

_AT_ONCE: Final = 3
"""Images that are fetched side by side."""
_PATIENCE: Final = 20.0
"""Seconds for which an upstream that does not answer is waited for: longer than the first pause of a breaker."""
_WAITS: Final = 5
"""How often that may happen in one run."""


async def fetch(pins: Pins, wanted: Sequence[Pin]) -> bool:
    """Brings everything that the pins mean; says whether all came. What goes wrong with one image is its own line."""
    complete = True
    tasks: list[asyncio.Task[Image | None]] = []
    with watching() as bars:
        fetching = _Fetching(pins, bars)
        async with asyncio.TaskGroup() as group:
            for pin in wanted:
                images = await _meant(pins, pin)
                complete = complete and bool(images)
                tasks += [group.create_task(fetching.bring(image)) for image in images]
        again = [image for image in (task.result() for task in tasks) if image is not None]
        await fetching.bring_again(again)
    output.say(f"{fetching.came} of {len(tasks)} images complete")
    return complete and fetching.came == len(tasks)


async def _meant(pins: Pins, pin: Pin) -> Sequence[Image]:
    """The images of a pin; complains where there are none."""
    try:
        found = await pins.images(pin)
    except RegistryError as error:
        output.complain(f"{pin.reference}: {error.message}")
        return []
    if not found:
        output.complain(f"{pin.reference}: no image is called so")
    return found


class _Fetching:
    """Images on their way."""

    def __init__(self, pins: Pins, bars: Watching) -> None:
        self.came = 0
        self._pins = pins
        self._bars = bars
        self._places = asyncio.Semaphore(_AT_ONCE)

    async def bring(self, image: Image) -> Image | None:
        """Fetches one and says how that went, or returns it where its upstream failed, maybe over another one."""
        breaker = image.upstream.breaker
        async with self._places:
            before = breaker.opened if breaker.state == "closed" else -1
            trouble, size = await self._tried(image)
        if trouble is not None and (breaker.state != "closed" or breaker.opened != before):
            return image
        self._tell(image, trouble, size)
        return None

    async def bring_again(self, images: Sequence[Image]) -> None:
        """Fetches one after the other, once their upstreams answer again: one that fails does not take others with it."""
        waits = _WAITS
        for image in images:
            if image.upstream.breaker.state != "closed" and waits > 0:
                waits = waits - 1 if await self._pins.wait_for(image.upstream, _PATIENCE) else 0
            self._tell(image, *await self._tried(image))

    async def _tried(self, image: Image) -> tuple[str | None, int]:
        """What went wrong, if anything, and the bytes that had to come."""
        wanted = 0

        def show(come: int, total: int) -> None:
            nonlocal wanted
            wanted = total
            bar.show(come, total)

        bar = self._bars.begin(str(image))
        try:
            return lacking(await self._pins.bring(image, show)), wanted
        except RegistryError as error:
            return error.message, wanted
        finally:
            bar.end()

    def _tell(self, image: Image, trouble: str | None, size: int) -> None:
        if trouble is None:
            self.came += 1
            output.say(f"{image}: {f'{size_text(size)} fetched' if size else 'up to date'}")
        else:
            output.complain(f"{image}: {trouble}")

"""What tests of the proxy share: a real upstream, a fault front before it, and an ear for what asyncio complains of."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.services.front import Front
from tests.services.pushing import Pusher
from tests.services.upstreams import Distribution, need_distribution


@pytest.fixture(scope="module")
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    """A registry to pull from, new for each file."""
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("upstream")) as server:
        yield server


@pytest.fixture(scope="module")
def pusher(upstream: Distribution) -> Pusher:
    """Fills it."""
    return upstream.pusher


@pytest.fixture
def front(upstream: Distribution) -> Iterator[Front]:
    """The front before it, without faults."""
    with Front(upstream.url) as front:
        yield front


@pytest.fixture(scope="module")
def shared_front(upstream: Distribution) -> Iterator[Front]:
    """A front for servers that a whole file shares; `fresh` it for each test."""
    with Front(upstream.url) as front:
        yield front


def fresh(front: Front) -> Front:
    """The front as if it had just begun."""
    front.clear()
    front.rate = None
    front.forget()
    return front


@pytest.fixture
async def complaints() -> AsyncIterator[list[dict[str, Any]]]:
    """What asyncio says of tasks and futures that nobody looked after; anything fails the test."""
    heard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    yield heard
    gc.collect()
    await asyncio.sleep(0)
    assert not heard, heard

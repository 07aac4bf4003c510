"""What operators ask without credentials: is it alive, is it ready, how is it doing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import APIRouter, Response

from app.oci.errors import RegistryError
from app.telemetry.metrics import CONTENT_TYPE, Metrics

_REMEMBERED: Final = 2.0
"""Seconds for which the store's last answer is believed: probes of many replicas must not load it."""


class Readiness:
    """Whether requests should be sent here: the store answers, and the server is not about to stop."""

    def __init__(self, check: Callable[[], Awaitable[None]]) -> None:
        self.draining = False
        self._check = check
        self._trouble: str | None = None
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def trouble(self) -> str | None:
        """Why not, in a few words; None when all is well."""
        if self.draining:
            return "the server is about to stop"
        async with self._lock:
            if time.monotonic() >= self._until:
                self._trouble = await self._ask()
                self._until = time.monotonic() + _REMEMBERED
        return self._trouble

    async def _ask(self) -> str | None:
        try:
            await self._check()
        except RegistryError as exc:
            return exc.message
        return None


def health(readiness: Readiness, metrics: Metrics) -> APIRouter:
    """The routes; `/livez` never touches the store."""
    router = APIRouter(tags=["operation"])

    @router.get("/livez", summary="The process is alive")
    @router.head("/livez", include_in_schema=False)
    async def livez() -> Response:
        return Response("ok\n", media_type="text/plain")

    @router.get("/readyz", summary="The store answers and requests are welcome", responses={503: {}})
    @router.head("/readyz", include_in_schema=False)
    async def readyz() -> Response:
        trouble = await readiness.trouble()
        return Response(f"{trouble or 'ok'}\n", status_code=503 if trouble else 200, media_type="text/plain")

    @router.get("/metrics", summary="Prometheus metrics")
    async def exposition() -> Response:
        return Response(await asyncio.to_thread(metrics.render), media_type=CONTENT_TYPE)

    return router

"""Limits: no check hangs, whatever it waits for, and neither does the end of the program."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any, Final, ParamSpec, TypeVar

from app.doctor.report import Check, failed

P = ParamSpec("P")
T = TypeVar("T")

_LEAVE: Final = 5.0


class AbandonedThreads(ThreadPoolExecutor):
    """A thread for each job, for which nobody waits in the end: a file on a dead disk would hold up the exit."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as exc:  # noqa: BLE001  (whatever it is, it belongs to who awaits the future)
                future.set_exception(exc)

        Thread(target=work, name="doctor", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Waits for nothing."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Runs the whole examination; threads that are still busy with what was given up end with the process."""
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(AbandonedThreads())
        return runner.run(main)


async def within(
    name: str, limit: float, fix: str, work: Coroutine[Any, Any, Sequence[Check]], *, leave: float = _LEAVE
) -> Sequence[Check]:
    """What `work` finds in `limit` seconds, else that it did not end: then it is cancelled, given `leave` seconds to
    take back what it made, and left to itself."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=limit)
        if task.done():
            return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=leave)
    return [failed(name, f"no answer within {limit:g} s", fix)]

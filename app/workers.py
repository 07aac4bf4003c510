"""Several worker processes under one parent: started, ended together, and started again when one dies."""

import multiprocessing
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Final

_PAUSE: Final = 1.0
"""Seconds before a worker that died is replaced, so that one that cannot start does not spin."""


def supervise(work: Callable[[], None], count: int) -> None:
    """Runs `work` in `count` processes until SIGTERM or SIGINT, which each of them gets too; returns when all ended."""
    spawn = multiprocessing.get_context("spawn")
    stop = threading.Event()
    workers = [_started(spawn.Process(target=work)) for _ in range(count)]

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for worker in workers:
            if worker.pid and worker.is_alive():
                worker.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    while not stop.is_set():
        dead = wait([worker.sentinel for worker in workers], timeout=1.0)
        if dead and not stop.wait(_PAUSE):
            workers[:] = [worker if worker.is_alive() else _started(spawn.Process(target=work)) for worker in workers]
    for worker in workers:
        worker.join()


def _started(process: BaseProcess) -> BaseProcess:
    process.start()
    return process

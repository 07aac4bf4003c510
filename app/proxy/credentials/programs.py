"""Other programs: run to their end, with bounds on time and output."""

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

_MOST: Final = 64 << 10
"""Bytes of each stream that are kept; more are read and dropped, so that the program can end."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended: its exit status, standard output and standard error, at most 64 KiB of each."""

    status: int
    output: bytes = field(repr=False)
    complaint: bytes = field(repr=False)


async def run(command: Sequence[str], text: bytes, environment: Mapping[str, str], seconds: float) -> Finished:
    """Runs a program with `text` as its input.

    Raises OSError where it cannot be started, and TimeoutError after `seconds`; then it and its children are killed.
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
    )
    try:
        async with asyncio.timeout(seconds):
            _, output, complaint = await asyncio.gather(
                _feed(process, text), _kept(process.stdout), _kept(process.stderr)
            )
            return Finished(await process.wait(), output, complaint)
    except BaseException:  # too late, or cancelled
        await _kill(process)
        raise


async def _feed(process: asyncio.subprocess.Process, text: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - for the type
    with suppress(BrokenPipeError, ConnectionResetError):  # it need not read
        process.stdin.write(text)
        await process.stdin.drain()
    process.stdin.close()


async def _kept(stream: asyncio.StreamReader | None) -> bytes:
    assert stream is not None  # noqa: S101 - for the type
    kept = bytearray()
    while chunk := await stream.read(_MOST):
        kept += chunk[: _MOST - len(kept)]
    return bytes(kept)


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Ends the program with its children, which hold the pipes though it may have ended itself."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()

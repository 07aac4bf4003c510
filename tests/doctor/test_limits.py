import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from app.doctor.limits import within
from app.doctor.report import Check, Verdict, ok
from tests.cli.conftest import ROOT, environment

HANG = """
import asyncio, sys
from app.doctor.limits import run, within

async def hang():
    return await asyncio.to_thread(open, sys.argv[1])

async def main():
    return await within("file", 0.1, "a fix", hang())

print(run(main())[0].found)
"""


def test_a_file_that_never_opens_holds_up_neither_the_check_nor_the_end_of_the_program(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    done = subprocess.run(
        [sys.executable, "-c", HANG, str(fifo)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "no answer within 0.1 s\n", "")


async def test_work_that_does_not_end_even_when_cancelled_is_left_alone() -> None:
    ended = asyncio.Event()

    async def stubborn() -> Sequence[Check]:
        try:
            await asyncio.Event().wait()
        finally:
            await ended.wait()
        return []

    start = time.monotonic()
    found = await within("x", 0.05, "a fix", stubborn(), leave=0.05)
    assert time.monotonic() - start < 5
    assert [(check.verdict, check.fix) for check in found] == [(Verdict.FAILED, "a fix")]
    ended.set()


async def test_work_that_ends_in_time_says_what_it_found() -> None:
    async def quick() -> Sequence[Check]:
        return [ok("x", "well")]

    assert await within("x", 5, "a fix", quick()) == [ok("x", "well")]

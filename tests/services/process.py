"""A program in the background: whether it answers yet, and ending it."""

import subprocess
import time
from collections.abc import Callable
from typing import Final

LOOK_SECONDS: Final = 0.03


def await_answer(process: subprocess.Popen[bytes], answers: Callable[[], bool], seconds: float) -> bool:
    """Asks until it answers; False where it ends before that, or does not answer within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if answers():
            return True
        time.sleep(LOOK_SECONDS)
    return False


def end(process: subprocess.Popen[bytes] | None, seconds: float) -> None:
    """SIGTERM, and SIGKILL where it has not ended after `seconds`; returns once it has. Nothing where there is none."""
    if process is None:
        return
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

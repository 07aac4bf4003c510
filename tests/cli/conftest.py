"""The real command line, in a process of its own, in an empty folder and with an empty environment."""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "app")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The one line of an error; fails the test where there are more, or where it is not ours."""
        lines = self.stderr.splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("edge-registry: "), self.stderr
        assert self.stdout == ""
        return lines[0].removeprefix("edge-registry: ")


Edge = Callable[..., Ended]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a command needs to start, and nothing of the machine's own configuration."""
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "COLUMNS": "100", **(extra or {})}


def run_to_end(
    command: Sequence[str], *, cwd: Path, stdin: str = "", extra: Mapping[str, str] | None = None, seconds: float = 60
) -> Ended:
    """How a command ends in an environment of nothing but `extra`; a traceback fails the test."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment(extra),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def edge(tmp_path: Path) -> Edge:
    """`edge("user", "list", stdin="", **environment)`, run in `tmp_path`."""

    def run(*arguments: str, stdin: str = "", **extra: str) -> Ended:
        return run_to_end([*PROGRAM, *arguments], cwd=tmp_path, stdin=stdin, extra=extra)

    return run

"""registry_setup.sh and its parts, run as people run them, with nothing of the machine's own settings."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.services.clients import CHECKOUT

WHOLE: Final = "registry_setup.sh"
RUN_SECONDS: Final = 400.0


@dataclass(frozen=True)
class Done:
    """How a run ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def would(self) -> list[str]:
        """What --dry-run said it would do, without "would"."""
        return [line.removeprefix("would ") for line in self.stdout.splitlines() if line.startswith("would ")]


class Setup:
    """The scripts with one state folder, `state`; `variables` are their whole environment besides PATH."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.state = folder / "state"
        self.variables = {
            "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "KUBECONFIG": str(folder / "no-cluster"),
            "REGISTRY_PYTHON": sys.executable,
            "REGISTRY_STATE": str(self.state),
            **variables,
        }

    def run(self, script: str, *arguments: str, **variables: str) -> Done:
        """Runs it to its end, whatever that is, without a terminal; a traceback fails the test."""
        path = CHECKOUT / "scripts" / (script if script == WHOLE else f"setup/{script}.sh")
        done = subprocess.run(
            [path, *arguments],
            env=self.variables | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
            start_new_session=True,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def succeed(self, script: str, *arguments: str, **variables: str) -> Done:
        """Runs it; fails with both outputs where it fails."""
        done = self.run(script, *arguments, **variables)
        assert done.status == 0, f"{script} {' '.join(arguments)}: {done.stdout}\n{done.stderr}"
        return done

    def fail(self, script: str, *arguments: str, **variables: str) -> str:
        """Runs it, fails where it succeeds, and returns its last complaint."""
        done = self.run(script, *arguments, **variables)
        assert done.status != 0, done.stdout
        return done.stderr.splitlines()[-1]

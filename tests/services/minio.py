"""A real MinIO for the tests: finding its binary, starting and stopping it."""

import os
import secrets
import shutil
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from tests.services.process import await_answer, end

START_SECONDS = 30.0
STOP_SECONDS = 10.0
CHECKOUT = Path(__file__).parents[2]


def find_minio() -> str | None:
    """The binary: `MINIO_BIN`, else `minio` on PATH, else Go's, else the one that scripts/test built; else None."""
    named = os.environ.get("MINIO_BIN")
    if named:
        return named
    places = (Path.home() / "go/bin/minio", CHECKOUT / ".cache/bin/minio")
    return shutil.which("minio") or next((str(place) for place in places if os.access(place, os.X_OK)), None)


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class MinioServer:
    """One server on loopback with its data below `folder`. `endpoint` is its URL; the keys are its root user's."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.endpoint = ""
        self.access_key = "tests"
        self.secret_key = secrets.token_hex(16)
        self._binary, self._folder = binary, folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """`host:port`, as the minio SDK wants it."""
        return self.endpoint.removeprefix("http://")

    def start(self) -> None:
        """Starts the server and waits until it serves requests. Raises RuntimeError with the end of its log."""
        for _ in range(3):  # another process may take the port between its choice and its use
            self._launch()
            if self._serves():
                return
            self.stop()
        raise RuntimeError(f"MinIO does not start: {self._log().read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        """Ends the server; its data stay, and `start` brings it back on another port."""
        process, self._process = self._process, None
        end(process, STOP_SECONDS)

    def _launch(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.endpoint = f"http://127.0.0.1:{free_port()}"
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._folder),
            "MINIO_ROOT_USER": self.access_key,
            "MINIO_ROOT_PASSWORD": self.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_CI_CD": "1",
        }
        addresses = ["--address", self.address, "--console-address", f"127.0.0.1:{free_port()}"]
        command = [self._binary, "server", "--quiet", *addresses, str(self._folder / "data")]
        with self._log().open("wb") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def _serves(self) -> bool:
        assert self._process is not None
        return await_answer(self._process, self._answers, START_SECONDS)

    def _answers(self) -> bool:
        # It is live before it can do anything, and then refuses for a minute: its 503 says to come back after 60 s.
        try:
            with urllib.request.urlopen(f"{self.endpoint}/minio/health/cluster", timeout=5):
                return True
        except urllib.error.HTTPError as answer:
            answer.close()
        except OSError:
            pass
        return False

    def _log(self) -> Path:
        return self._folder / "minio.log"

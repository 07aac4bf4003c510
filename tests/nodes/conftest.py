"""Made-up node roots, and what is in them before and after."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from app.tls.authority import make_certificates
from tests.cli.conftest import Ended
from tests.nodes.roots import HOSTS, make_root, program

MakeDocument = Callable[..., Path]
Run = Callable[..., Ended]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node with a hosts file and nothing else; `make_root` adds what a test is about."""
    return make_root(tmp_path / "node", {"etc/hosts": HOSTS})


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The PEM of an authority."""
    return make_certificates(tmp_path_factory.mktemp("authority"), ["registry.example"]).ca.read_text()


@pytest.fixture
def document(tmp_path: Path) -> MakeDocument:
    """Writes the document of node-setup."""

    def make(**content: object) -> Path:
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump({"hosts": ["192.0.2.7:5045"], **content}))
        return path

    return make


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs one command of nodes to its end."""

    def run(*arguments: str | Path, stdin: str = "") -> Ended:
        return program(*map(str, arguments), cwd=tmp_path, stdin=stdin)

    return run

"""Daemons start however deep the folder of their test is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.services.clients import Client
from tests.services.daemons import ContainerdDaemon, DockerDaemon
from tests.services.engines import need, root

__all__ = ["need", "root"]

pytestmark = [pytest.mark.clients, pytest.mark.usefixtures("root")]


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """As pytest-xdist makes them, and more: no socket fits in there."""
    return tmp_path / ("popen-gw0-" * 15)


def test_containerd_starts_in_a_deep_folder_and_leaves_no_socket(need: Callable[[str], Path], deep: Path) -> None:
    with ContainerdDaemon(deep, need("containerd"), need("ctr")) as daemon:
        assert daemon.socket.is_socket()
        assert "Server" in Client(need("ctr"), deep / "home", environment=daemon.client).run("version")
    assert not daemon.sockets.exists()


def test_docker_starts_in_a_deep_folder_and_leaves_no_socket(need: Callable[[str], Path], deep: Path) -> None:
    with DockerDaemon(deep, need("dockerd"), need("docker")) as daemon:
        assert daemon.socket.is_socket()
        assert "Server" in Client(need("docker"), deep / "home", environment=daemon.client).run("version")
    assert not daemon.sockets.exists()


def test_a_path_that_is_too_long_for_a_socket_is_said_with_its_length(need: Callable[[str], Path], deep: Path) -> None:
    deep.mkdir()
    daemon = ContainerdDaemon(deep, need("containerd"), need("ctr"), short=deep)
    with pytest.raises(AssertionError, match=r"may have 107 bytes, and /\S+\.ttrpc has \d{3}"), daemon:
        pass
    assert not daemon.sockets.exists()

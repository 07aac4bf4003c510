"""Servers that real clients talk to, and the clients themselves."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.outside import Outside
from tests.services.engines import (
    containerd,
    containerd_programs,
    ctr,
    docker,
    dockerd,
    generation,
    image_store,
    make_client,
    mirrors,
    need,
    need_newer,
    podman,
    root,
    surroundings,
)
from tests.services.images import Layout, write_image, write_index
from tests.services.registry import Credentials, RegistryServer, filesystem_store, s3_store

__all__ = [
    "containerd",
    "containerd_programs",
    "ctr",
    "docker",
    "dockerd",
    "generation",
    "image_store",
    "make_client",
    "mirrors",
    "need",
    "need_newer",
    "podman",
    "root",
    "surroundings",
]


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry on a folder, over plain HTTP, without users."""
    folder = tmp_path_factory.mktemp("plain")
    with RegistryServer(folder, filesystem_store(folder / "data")) as server:
        yield server


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory, minio: Any) -> Iterator[RegistryServer]:
    """A registry on MinIO, over TLS, with a password."""
    store = s3_store(minio.endpoint, f"clients-{secrets.token_hex(4)}", minio.access_key, minio.secret_key)
    user = Credentials("edge", secrets.token_urlsafe(24))
    with RegistryServer(tmp_path_factory.mktemp("secured"), store, users=user, tls=True) as server:
        yield server


@pytest.fixture(params=["plain", "secured"])
def server(request: pytest.FixtureRequest) -> RegistryServer:
    """Both of them in turn."""
    found: RegistryServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def busybox(need: Callable[[str], Path]) -> bytes:
    """A shell that runs without any library."""
    return need("busybox").read_bytes()


@pytest.fixture
def layers(busybox: bytes) -> list[dict[str, bytes]]:
    """Three layers that make an image which prints its last file.

    Each is new with every test: skopeo, podman and buildah remember, for the whole machine, which compressed layers
    hold the same files, and send another one than they were given where a registry holds it.
    """
    fresh = secrets.token_hex(16).encode()
    return [{"bin/busybox": busybox, "etc/zeroth": fresh}, {"etc/first": fresh}, {"etc/last": fresh}]


@pytest.fixture
def layout(tmp_path: Path, layers: list[dict[str, bytes]]) -> Layout:
    """That image as an OCI layout."""
    return write_image(tmp_path / "layout", layers)


@pytest.fixture
def index_layout(tmp_path: Path, layers: list[dict[str, bytes]]) -> Layout:
    """An index of images for two architectures."""
    return write_index(
        tmp_path / "index-layout",
        {"amd64": layers, "arm64": [*layers[1:2], {"etc/last": b"arm\n" + layers[1]["etc/first"]}]},
    )


@pytest.fixture(scope="module")
def way_out() -> Iterator[Outside]:
    """The world outside, for a module to say in `surroundings` that there is no other way to it."""
    with Outside() as outside:
        yield outside


@pytest.fixture
def outside(way_out: Outside) -> Outside:
    """The same, with whom this test's programs want to reach."""
    way_out.asked.clear()
    return way_out


@pytest.fixture
def repository() -> str:
    """A repository name of several levels that no other test uses."""
    return f"team/app/{secrets.token_hex(5)}"


def certificate_folder(server: RegistryServer, folder: Path) -> Path:
    """A folder as podman, buildah and skopeo want it: nothing in it but the authority to trust, where there is one."""
    folder.mkdir(exist_ok=True)
    if server.ca:
        (folder / "ca.crt").write_bytes(server.ca.read_bytes())
    return folder

"""Real clients on a node with the files that node-config wrote: TLS with our authority, a hosts entry, a password."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.tls.authority import make_certificates
from tests.nodes.roots import make_root, program
from tests.services.clients import Client
from tests.services.daemons import ContainerdDaemon, DockerDaemon
from tests.services.engines import MakeClient
from tests.services.images import Layout
from tests.services.registry import Credentials, RegistryServer, filesystem_store

pytestmark = [pytest.mark.clients, pytest.mark.usefixtures("root")]

NAME = "container-registry.test"
USER = Credentials("ann", "right password")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    """A registry with a certificate for NAME, which no DNS server knows."""
    folder = tmp_path_factory.mktemp("named")
    everywhere = {"EDGE_REGISTRY_HTTP__HOST": "0.0.0.0"}
    server = RegistryServer(folder, filesystem_store(folder / "data"), users=USER, tls=True, settings=everywhere)
    assert server.certificates is not None
    make_certificates(server.certificates, ["127.0.0.1", "localhost", NAME])
    with server:
        yield server


@pytest.fixture
def image(named: RegistryServer, make_client: MakeClient, layout: Layout, repository: str) -> str:
    """An image there, pushed by its address; returns what it is called by its name."""
    skopeo = make_client("skopeo")
    folder = skopeo.home / "authority"
    folder.mkdir()
    assert named.ca is not None
    shutil.copy(named.ca, folder)
    login = ["--dest-creds", f"{USER.name}:{USER.password}", "--dest-cert-dir", str(folder)]
    skopeo.run("copy", *login, f"oci:{layout.folder}:{layout.tag}", f"docker://{named.host}/{repository}:latest")
    return f"{NAME}:{named.port}/{repository}:latest"


def own_address() -> str:
    """An address of this machine that is not loopback, which Docker would not ask for a certificate."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def make_node(tmp_path: Path, client: str, server: RegistryServer, address: str = "127.0.0.1") -> Path:
    """The root of a node that has what node-config says for one client, with its hosts entry."""
    node = make_root(tmp_path / "node", {"etc/hosts": "127.0.0.1 localhost\n", "etc/resolv.conf": ""})
    for name in ("passwd", "group", "nsswitch.conf", "containers/policy.json", "subuid", "subgid"):
        if os.path.exists(f"/etc/{name}"):
            make_root(node, {f"etc/{name}": Path("/etc", name).read_text()})
    host = ["--host", f"{NAME}:{server.port}", "--ca", str(server.ca), "--address", f"{NAME}={address}"]
    done = program("node-config", "--for", client, *host, "--write", str(node), cwd=tmp_path)
    assert done.status == 0, done.stderr
    return node


def on_node(program: Path, node: Path, folder: Path) -> Path:
    """The program as it runs on the node: in a mount namespace where the node's /etc is /etc."""
    script = folder / f"{program.name}-on-node"
    inner = f'mount --bind {node}/etc /etc && exec {program} "$@"'
    script.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{inner}' sh \"$@\"\n")
    script.chmod(0o755)
    return script


def moved(client: Client, node: Path, folder: Path) -> None:
    """Takes the client to the node."""
    client.program = on_node(client.program, node, folder)


def test_nothing_here_knows_the_name() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo(NAME, 443)


def test_containerd_pulls_by_the_name_with_the_password_and_not_without(
    containerd_programs: tuple[Path, Path], named: RegistryServer, image: str, layout: Layout, tmp_path: Path
) -> None:
    node = make_node(tmp_path, "containerd", named)
    program, ctr = containerd_programs
    hosts = ["--hosts-dir", "/etc/containerd/certs.d"]
    login = ["--user", f"{USER.name}:{USER.password}"]
    # It is ctr that reads these files with generation 1, and the daemon with generation 2.
    with ContainerdDaemon(tmp_path / "containerd", on_node(program, node, tmp_path), ctr) as daemon:
        client = Client(on_node(ctr, node, tmp_path), tmp_path / "home-ctr", environment=daemon.client)
        refused = client.fail("images", "pull", *hosts, image)
        assert "401" in refused or "no basic auth credentials" in refused, refused
        assert "certificate" in client.fail("images", "pull", *login, image)
        client.run("images", "pull", *hosts, *login, image)
        assert layout.digest in client.run("images", "list", f"name=={image}")


def test_podman_pulls_by_the_name_with_the_password_and_not_without(
    podman: Client, named: RegistryServer, image: str, layout: Layout, tmp_path: Path
) -> None:
    node = make_node(tmp_path, "podman", named)
    moved(podman, node, tmp_path)
    login = ["--creds", f"{USER.name}:{USER.password}"]
    said = podman.fail("pull", image)
    assert "authentication required" in said or "unauthorized" in said, said
    podman.run("pull", *login, image)
    assert layout.digest in podman.run("image", "inspect", "--format", "{{.Digest}}", image)
    shutil.rmtree(node / "etc/containers/certs.d")
    assert "certificate" in podman.fail("pull", *login, image)


def test_docker_pulls_by_the_name_with_the_password_and_not_without(
    need: Callable[[str], Path],
    make_client: MakeClient,
    named: RegistryServer,
    image: str,
    tmp_path: Path,
) -> None:
    node = make_node(tmp_path, "docker", named, own_address())
    there = on_node(need("dockerd"), node, tmp_path)
    with DockerDaemon(tmp_path / "dockerd", there, need("docker")) as daemon:
        docker = make_client("docker", (), daemon.client)
        assert "no basic auth credentials" in docker.fail("pull", image)
        docker.run("login", "--username", USER.name, "--password-stdin", image.partition("/")[0], stdin=USER.password)
        docker.run("pull", image)
        shutil.rmtree(node / "etc/docker/certs.d")
        assert "certificate" in docker.fail("pull", image)

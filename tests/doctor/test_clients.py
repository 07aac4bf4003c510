import json
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from app.doctor import programs
from app.doctor.clients import Wanted, examine_clients
from app.doctor.names import Host
from app.doctor.programs import examine_node_port
from app.doctor.report import Check, Verdict
from app.nodes import containerd, docker, k3s, lookup, podman
from app.nodes.files import ClientFiles
from app.nodes.root import Root
from app.nodes.site import Site
from app.tls.authority import make_certificates
from tests.doctor.verdicts import bad, the_one
from tests.nodes.roots import SET_CONTAINERD
from tests.proxy.served import serve

HOST = "registry.example:5045"
CONFIGS: list[Callable[[Site], ClientFiles]] = [containerd.configure, docker.configure, podman.configure, k3s.configure]


@pytest.fixture
def ca(tmp_path: Path) -> str:
    return make_certificates(tmp_path / "ca", ["registry.example"]).ca.read_text()


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A node with a containerd that looks into certs.d, and nothing else."""
    write(tmp_path / "node", lookup.CONFIG, SET_CONTAINERD)
    return tmp_path / "node"


def write(node: Path, path: str, text: str) -> None:
    file = node / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def looked_at(node: Path, ca: str | None, scheme: str = "https", host: str = HOST) -> list[Check]:
    return examine_clients(Root(node), Wanted([Host(host, scheme)], ca, ["--ca", "ca.crt"]), {})


@pytest.mark.parametrize("configure", CONFIGS, ids=["containerd", "docker", "podman", "k3s"])
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_what_node_config_writes_is_sound(
    configure: Callable[[Site], ClientFiles], scheme: str, node: Path, ca: str
) -> None:
    wanted = configure(Site((HOST,), scheme=scheme, ca=ca if scheme == "https" else None))
    for file in wanted.files:
        write(node, file.path, file.text)
    for edit in wanted.edits:
        write(node, edit.path, edit.insert(""))
    for by_hand in wanted.by_hand:
        write(node, by_hand.path, by_hand.text)
    checks = looked_at(node, ca if scheme == "https" else None, scheme)
    assert bad(check for check in checks if check.name == f"{wanted.client} {HOST}") == []
    assert f"{wanted.client} {HOST}" in [check.name for check in checks]


@pytest.mark.parametrize(
    ("client", "path"),
    [
        ("containerd", f"{lookup.CERTS}/{HOST}/ca.crt"),
        ("docker", f"{docker.CERTS}/{HOST}/ca.crt"),
        ("podman", f"{podman.CERTS}/{HOST}/ca.crt"),
    ],
)
def test_an_authority_of_an_earlier_registry_is_a_failure(
    client: str, path: str, node: Path, ca: str, tmp_path: Path
) -> None:
    write(node, path, make_certificates(tmp_path / "older", ["registry.example"]).ca.read_text())
    check = the_one(check for check in looked_at(node, ca) if check.name == f"{client} {HOST}")
    assert "another authority than ours" in check.found
    assert check.fix == f"edge-registry node-config --for {client} --host {HOST} --ca ca.crt | sudo sh"


@pytest.mark.parametrize(("client", "folder"), [("docker", "/etc/docker"), ("k3s", k3s.FOLDER)])
def test_a_client_that_was_told_nothing_is_a_warning(client: str, folder: str, node: Path, ca: str) -> None:
    (node / folder.lstrip("/")).mkdir(parents=True)
    check = the_one([one for one in looked_at(node, ca) if one.name == f"{client} {HOST}"], Verdict.WARNING)
    assert check.fix == f"edge-registry node-config --for {client} --host {HOST} --ca ca.crt | sudo sh"


def test_a_publicly_trusted_certificate_needs_nothing(node: Path) -> None:
    assert bad(looked_at(node, None)) == []


def test_a_host_without_clients_is_no_trouble(tmp_path: Path) -> None:
    assert bad(looked_at(tmp_path, None)) == []


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        (docker.DAEMON, "{", "Docker does not start"),
        (docker.DAEMON, json.dumps({"insecure-registries": [HOST]}), "trusts whoever answers"),
        (k3s.PATH, "mirrors:\n  a: b\n  a: c\n", "k3s does not start with it"),
        ("/etc/containers/registries.conf", "[[registry]\n", "podman refuses every command"),
        (
            "/etc/containers/registries.conf",
            f'[[registry]]\nlocation = "{HOST}"\nblocked = true\n',
            "registries.conf blocks it",
        ),
        (lookup.CONFIG, "[plugins\n", "containerd does not start"),
        (f"{lookup.CERTS}/{HOST}/hosts.toml", "server = \n", "is not valid TOML"),
        (f"{lookup.CERTS}/{HOST}/hosts.toml", "skip_verify = true\n", "trusts whoever answers"),
    ],
)
def test_files_that_break_a_client_or_its_trust_are_named(path: str, text: str, said: str, node: Path, ca: str) -> None:
    write(node, path, text)
    assert said in " ".join(check.found for check in bad(looked_at(node, ca)))


def test_an_old_containerd_that_looks_nowhere_gets_the_line_to_add(tmp_path: Path) -> None:
    write(tmp_path, lookup.CONFIG, 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\n')
    check = the_one(looked_at(tmp_path, None), Verdict.WARNING)
    assert check.fix is not None
    assert 'config_path = "/etc/containerd/certs.d"' in check.fix


@pytest.mark.parametrize(
    ("version", "verdict"), [("containerd 2.4.2", Verdict.WARNING), ("containerd 2.0.7", None), (None, Verdict.WARNING)]
)
def test_a_containerd_2_that_takes_two_folders_for_one_is_found_out(
    tmp_path: Path, version: str | None, verdict: Verdict | None
) -> None:
    registry = '[plugins."io.containerd.cri.v1.images".registry]'
    write(tmp_path, lookup.CONFIG, f'version = 3\n{registry}\nconfig_path = "{lookup.CERTS}:/etc/docker/certs.d"\n')
    versions = {"containerd": version} if version else {}
    found = bad(examine_clients(Root(tmp_path), Wanted([], None), versions))
    assert [check.verdict for check in found] == ([verdict] if verdict else [])
    assert all(f'{registry} config_path = "{lookup.CERTS}"' in str(check.fix) for check in found)


def test_a_containerd_that_serves_docker_alone_is_left_in_peace(tmp_path: Path) -> None:
    write(tmp_path, lookup.CONFIG, 'disabled_plugins = ["cri"]\n')
    assert bad(looked_at(tmp_path, "no matter")) == []


def test_looking_changes_nothing(node: Path, ca: str) -> None:
    write(node, f"{docker.CERTS}/{HOST}/ca.crt", "x")
    before = {path: path.stat().st_mtime_ns for path in node.rglob("*")}
    looked_at(node, ca)
    assert {path: path.stat().st_mtime_ns for path in node.rglob("*")} == before


@pytest.mark.parametrize(
    ("mode", "verdict"),
    [("iptables", Verdict.OK), ("nftables", Verdict.FAILED), ("ipvs", Verdict.FAILED), (None, Verdict.WARNING)],
)
async def test_node_ports_at_localhost_depend_on_the_mode_of_kube_proxy(
    mode: str | None, verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(_request: web.Request) -> web.StreamResponse:
        return web.Response(text=mode or "", status=200 if mode else 404)

    async with serve(answer) as served:
        monkeypatch.setattr(programs, "_PROXY_MODE", f"{served.base}/proxyMode")
        checks = await examine_node_port([Host("localhost:31113", "https"), Host(HOST, "https")])
    assert [check.verdict for check in checks] == [verdict]
    bad(checks)


async def test_other_names_have_nothing_to_do_with_kube_proxy() -> None:
    hosts = [Host("192.0.2.7:31113", "https"), Host("localhost:5045", "http")]
    assert await examine_node_port(hosts) == []

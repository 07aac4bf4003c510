import json
import os
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from app.tls.authority import make_certificates
from tests.nodes.roots import HOSTS, make_root, picture, program

ALL = ("containerd", "k3s", "docker", "podman", "crio", "buildkit")


def clients(*names: str) -> list[str]:
    return [word for name in names for word in ("--for", name)]


def test_the_script_that_is_printed_writes_what_write_writes(tmp_path: Path) -> None:
    ca = make_certificates(tmp_path / "certs", ["192.0.2.7"]).ca
    given = [
        *clients(*ALL),
        "--host",
        "192.0.2.7:5045",
        "--ca",
        str(ca),
        "--mirror",
        "docker.io",
        "--address",
        "r.lan=192.0.2.7",
    ]
    script = program("node-config", *given, cwd=tmp_path)
    assert script.status == 0, script.stderr
    printed = make_root(tmp_path / "printed", {"etc/hosts": HOSTS.rstrip("\n")})
    for _ in range(2):
        done = subprocess.run(
            ["sh", "-eu"], input=script.stdout, env=os.environ | {"ROOT": str(printed)}, text=True, check=False
        )
        assert done.returncode == 0
    written = make_root(tmp_path / "written", {"etc/hosts": HOSTS})
    assert program("node-config", *given, "--write", str(written), cwd=tmp_path).status == 0
    assert picture(printed) == picture(written)
    assert (printed / "etc/hosts").read_text().startswith(HOSTS)
    assert (
        tomllib.loads((written / "etc/containerd/certs.d/192.0.2.7:5045/hosts.toml").read_text())["host"][
            "https://192.0.2.7:5045"
        ]["dial_timeout"]
        == "2s"
    )
    assert yaml.safe_load((written / "etc/rancher/k3s/registries.yaml").read_text())["mirrors"]["docker.io"]


def test_the_script_leaves_alone_what_others_wrote(tmp_path: Path) -> None:
    node = make_root(tmp_path / "node", {"etc/rancher/k3s/registries.yaml": "mirrors:\n"})
    script = program("node-config", *clients("k3s"), "--host", "192.0.2.7:5045", "--plain-http", cwd=tmp_path)
    done = subprocess.run(
        ["sh"], input=script.stdout, env=os.environ | {"ROOT": str(node)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "left /etc/rancher/k3s/registries.yaml alone" in done.stderr
    assert (node / "etc/rancher/k3s/registries.yaml").read_text() == "mirrors:\n"


def test_names_and_authority_come_from_the_configuration_of_the_server(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "certs", ["registry.lan"])
    (tmp_path / "server.yaml").write_text(
        yaml.safe_dump(
            {
                "http": {
                    "public_url": "https://registry.lan:5045",
                    "tls": {"certificate": str(made.certificate), "key": str(made.key)},
                },
                "proxy": {"upstreams": [{"name": "quay.io", "url": "https://quay.io"}]},
            }
        )
    )
    given = [*clients("podman"), "--mirror", "*", "--config", "server.yaml", "--json"]
    (podman,) = json.loads(program("node-config", *given, cwd=tmp_path).stdout)
    files = {file["path"]: file["text"] for file in podman["files"]}
    assert made.ca.read_text() in files["/etc/containers/certs.d/registry.lan:5045/ca.crt"]
    mirrors = tomllib.loads(files["/etc/containers/registries.conf.d/50-edge-registry.conf"])["registry"]
    assert mirrors[0]["mirror"] == [{"location": "registry.lan:5045/quay.io"}]


@pytest.mark.parametrize(
    ("client", "restart"), [("containerd", 0), ("k3s", 1), ("docker", 1), ("podman", 0), ("crio", 1), ("buildkit", 1)]
)
def test_each_client_says_whether_anything_must_be_restarted(tmp_path: Path, client: str, restart: int) -> None:
    given = [*clients(client), "--host", "r.lan:5045", "--plain-http", "--mirror", "docker.io", "--json"]
    (found,) = json.loads(program("node-config", *given, cwd=tmp_path).stdout)
    assert len(found["restart"]) == restart


@pytest.mark.parametrize(
    ("host", "http"),
    [
        *(("localhost:32000", False), ("127.0.0.1:5045", False), ("[::1]:5045", False)),
        *(("reg.lan:5045", None), ("192.0.2.7:5045", None)),
    ],
)
def test_buildkit_is_told_to_speak_tls_to_loopback_addresses(tmp_path: Path, host: str, http: bool | None) -> None:
    ca = make_certificates(tmp_path / "certs", ["localhost"]).ca
    given = [*clients("buildkit"), "--host", host, "--ca", str(ca), "--json"]
    (found,) = json.loads(program("node-config", *given, cwd=tmp_path).stdout)
    (section,) = [one["text"] for one in found["by_hand"] if "buildkitd.toml" in one["path"]]
    (registry,) = tomllib.loads(section)["registry"].values()
    assert registry["ca"]
    assert registry.get("http") is http


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "--host"),
        (["--host", "r/../x"], "no registry"),
        (["--host", "r:1", "--ca", "missing.pem"], "missing.pem"),
        (["--host", "r:1", "--address", "r=x"], "no IP address"),
        (["--host", "r:1", "--mirror-url", "https://r:1/path"], "no URL"),
        (["--host", "r:1'; rm -rf"], "no registry"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, given: list[str], said: str) -> None:
    ended = program("node-config", *clients("docker"), *given, cwd=tmp_path)
    assert ended.status == 2
    assert said in ended.complaint

"""The whole command, on sound installations and on broken ones: each names the cause and one fix."""

import json
import os
import socket
import tarfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import PROGRAM, Ended, run_to_end
from tests.doctor.certificates import self_signed
from tests.services.minio import MinioServer, free_port
from tests.services.registry import Credentials, RegistryServer, filesystem_store

USER = Credentials("me", "correct-horse-battery")
BROKEN_PASSWORD = "hush-hush-hush"
pytestmark = pytest.mark.timeout(300)  # it starts many programs, on machines that may be busy

Doctor = Callable[..., Ended]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """`doctor("--only", "store", stdin="", **environment)`, run in `tmp_path`."""

    def run(*arguments: str, stdin: str = "", **extra: str) -> Ended:
        ended = run_to_end([*PROGRAM, "doctor", *arguments], cwd=tmp_path, stdin=stdin, extra=extra, seconds=100)
        assert USER.password not in ended.stdout + ended.stderr
        assert BROKEN_PASSWORD not in ended.stdout + ended.stderr
        return ended

    return run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    folder = tmp_path_factory.mktemp("registry")
    with RegistryServer(folder, filesystem_store(folder / "data"), users=USER, tls=True) as server:
        yield server


def configured(server: RegistryServer, **changed: Any) -> str:
    """The YAML of the running server."""
    assert server.certificates is not None
    certificate, key = (str(server.certificates / name) for name in ("server.crt", "server.key"))
    document = {
        "http": {"host": "127.0.0.1", "port": server.port, "tls": {"certificate": certificate, "key": key}},
        "storage": {"driver": "filesystem", "filesystem": {"root": str(server.folder / "data")}},
        "auth": {"htpasswd": str(server.folder / "htpasswd")},
        **changed,
    }
    return json.dumps(document)


def failures(ended: Ended) -> dict[str, dict[str, str]]:
    """The checks of a `--json` report that failed, by name; every check that is not ok has one fix."""
    document = json.loads(ended.stdout)
    assert all((check["fix"] is None) == (check["verdict"] == "ok") for check in document["checks"])
    found = [check for check in document["checks"] if check["verdict"] == "failed"]
    assert document["sound"] is (not found)
    assert ended.status == (1 if found else 0)
    return {check["name"]: check for check in found}


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_sound_installation_is_sound_and_is_left_as_it_was(
    doctor: Doctor, server: RegistryServer, tmp_path: Path
) -> None:
    (tmp_path / "c.yml").write_text(configured(server))
    before = files(server.folder / "data")
    ended = doctor(
        *("--config", "c.yml", "--user", USER.name, "--password-stdin", "--root", str(tmp_path), "--host", server.host),
        stdin=USER.password,
    )
    assert (ended.status, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[-1].endswith(" 0 warnings, 0 failed"), ended.stdout
    assert [line for line in lines if not line.startswith(" ")][:-1] == [
        *("configuration", "port", "certificate", "store", "round-trip", "clients")
    ]
    assert "without a trace" in ended.stdout
    assert files(server.folder / "data") == before


def test_without_a_login_only_the_store_behind_a_server_is_tried_and_that_is_said(
    doctor: Doctor, server: RegistryServer, tmp_path: Path
) -> None:
    (tmp_path / "c.yml").write_text(configured(server))
    before = files(server.folder / "data")
    ended = doctor("--config", "c.yml", "--only", "round-trip")
    assert ended.status == 0
    assert "warning" in ended.stdout
    assert "the store, without a server: the same bytes" in ended.stdout
    assert files(server.folder / "data") == before


def test_before_anything_is_configured_nothing_fails_and_nothing_is_made(doctor: Doctor, tmp_path: Path) -> None:
    ended = doctor("--json", "--root", str(tmp_path), EDGE_REGISTRY_HTTP__PORT=str(free_port()))
    assert failures(ended) == {}
    assert json.loads(ended.stdout)["skipped"] == {"round-trip": "no registry runs here, and the store cannot be used"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("known", ["url", "ca"])
def test_a_node_that_only_pulls_is_not_advised_to_do_without_tls(
    doctor: Doctor, server: RegistryServer, tmp_path: Path, known: str
) -> None:
    (tmp_path / "etc/docker").mkdir(parents=True)
    (tmp_path / "etc/containers").mkdir()
    assert server.ca is not None
    told = ("--url", f"https://{server.host}") if known == "url" else ("--ca", str(server.ca))
    ended = doctor("--json", "--only", "clients", "--host", "registry.example:5045", "--root", str(tmp_path), *told)
    checks = {check["name"]: check for check in json.loads(ended.stdout)["checks"]}
    assert {"docker registry.example:5045", "podman registry.example:5045"} <= set(checks)
    assert "wants TLS" not in ended.stdout
    assert "--plain-http" not in ended.stdout


def test_an_unknown_key_says_what_was_meant_and_what_could_not_be_looked_at(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("http: {prot: 5000}\n")
    ended = doctor("--config", "c.yml", "--json", "--root", str(tmp_path))
    check = failures(ended)["setting"]
    assert check["found"] == "unknown key http.prot in file c.yml"
    assert check["fix"] == "write http.port in file c.yml"
    assert set(json.loads(ended.stdout)["skipped"]) == {"port", "certificate", "store", "round-trip", "upstreams"}


def test_a_certificate_that_has_ended_is_named(doctor: Doctor, server: RegistryServer, tmp_path: Path) -> None:
    pair = self_signed(tmp_path, ends=-timedelta(hours=2))
    http = {"port": free_port(), "tls": {"certificate": str(pair.certificate), "key": str(pair.key)}}
    (tmp_path / "c.yml").write_text(configured(server, http=http))
    check = failures(doctor("--config", "c.yml", "--only", "certificate", "--json"))["expiry"]
    assert check["found"].startswith("it ended on ")
    assert check["fix"].startswith("edge-registry setup certs ")


def test_a_certificate_for_another_name_than_clients_use_is_named(
    doctor: Doctor, server: RegistryServer, tmp_path: Path
) -> None:
    (tmp_path / "c.yml").write_text(configured(server))
    check = failures(doctor("--config", "c.yml", "--only", "certificate", "--host", "other.example:5045", "--json"))
    assert "it is not for other.example, but for 127.0.0.1, localhost" in check["names"]["found"]
    assert check["names"]["fix"].endswith("--name other.example")


def test_a_port_that_another_program_has_taken_is_named(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = failures(doctor("--only", "port", "--json", EDGE_REGISTRY_HTTP__PORT=str(port)))
    assert found[f"127.0.0.1:{port}"]["found"] == "taken by a program that is no edge registry"
    assert "http.port" in found[f"127.0.0.1:{port}"]["fix"]


def test_a_file_of_users_that_is_not_there_is_named(doctor: Doctor) -> None:
    ended = doctor("--only", "configuration", "--json", EDGE_REGISTRY_AUTH__HTPASSWD="gone")
    assert "gone is not there" in failures(ended)["auth.htpasswd"]["found"]


def test_a_door_that_was_left_open_by_accident_is_named(doctor: Doctor) -> None:
    check = failures(doctor("--only", "configuration", "--json", EDGE_REGISTRY_HTTP__HOST="0.0.0.0"))["access"]
    assert check["found"] == "http.host 0.0.0.0 is open to the network and there are no users"
    assert check["fix"].startswith("edge-registry user add NAME")


def store(minio: MinioServer, bucket: str, secret: str) -> dict[str, str]:
    given = {"ENDPOINT": minio.endpoint, "BUCKET": bucket, "ACCESS_KEY": minio.access_key, "SECRET_KEY": secret}
    port = {"EDGE_REGISTRY_HTTP__PORT": str(free_port())}
    return port | {f"EDGE_REGISTRY_STORAGE__S3__{name}": text for name, text in given.items()}


STORE = ("--only", "store", "--only", "round-trip", "--json")


@pytest.mark.minio
def test_a_sound_bucket_is_sound(doctor: Doctor, minio: MinioServer, bucket: str) -> None:
    ended = doctor(*STORE, **store(minio, bucket, minio.secret_key))
    assert failures(ended) == {}
    assert {check["group"] for check in json.loads(ended.stdout)["checks"]} == {"store", "round-trip"}


@pytest.mark.minio
def test_a_wrong_secret_key_is_named(doctor: Doctor, minio: MinioServer, bucket: str) -> None:
    wrong = failures(doctor(*STORE, **store(minio, bucket, BROKEN_PASSWORD)))
    assert "SignatureDoesNotMatch" in wrong["credentials"]["found"]
    assert "storage.s3.secret_key" in wrong["credentials"]["fix"]


@pytest.mark.minio
def test_a_missing_bucket_is_named(doctor: Doctor, minio: MinioServer) -> None:
    missing = failures(doctor(*STORE, **store(minio, "nowhere", minio.secret_key)))
    assert missing["bucket"]["fix"] == "edge-registry setup bucket --bucket nowhere"


def test_an_upstream_with_a_wrong_password_is_named_beside_one_that_is_sound(
    doctor: Doctor, server: RegistryServer, tmp_path: Path
) -> None:
    upstreams = [
        {
            "name": f"{name}.example",
            "url": server.url,
            "tls": {"ca": str(server.ca)},
            "credentials": {"username": USER.name, "password": text},
        }
        for name, text in (("good", USER.password), ("bad", BROKEN_PASSWORD))
    ]
    (tmp_path / "c.yml").write_text(json.dumps({"proxy": {"upstreams": upstreams}}))
    found = failures(doctor("--config", "c.yml", "--only", "upstreams", "--json"))
    assert list(found) == ["bad.example login"]
    assert found["bad.example login"]["fix"].startswith("set proxy.upstreams.1.credentials")


def test_a_pull_secret_is_tried_at_the_server_and_at_the_file_of_users(
    doctor: Doctor, server: RegistryServer, tmp_path: Path
) -> None:
    from app.nodes.pull_secret import PullSecret

    login = PullSecret("pull", [server.host], USER.name)
    (tmp_path / "good.yml").write_text(login.manifest(USER.password))
    (tmp_path / "bad.yml").write_text(login.manifest(BROKEN_PASSWORD))
    (tmp_path / "running.yml").write_text(configured(server))
    (tmp_path / "stopped.yml").write_text(configured(server, http={"port": free_port()}))
    for config in ("running.yml", "stopped.yml"):
        options = ("--config", config, "--only", "pull-secret", "--host", server.host, "--json", "--pull-secret")
        assert failures(doctor(*options, "good.yml")) == {}
        assert "refuses the login of me" in failures(doctor(*options, "bad.yml"))["login"]["found"]


def test_the_bundle_holds_what_helps_and_no_secret(doctor: Doctor, server: RegistryServer, tmp_path: Path) -> None:
    from app.nodes.pull_secret import PullSecret

    (tmp_path / "password").write_text("from-a-password-file\n")
    (tmp_path / "key").write_text("secret-of-the-store\n")
    credentials = [
        {"username": "me", "password": BROKEN_PASSWORD},
        {"username": "me", "password_file": str(tmp_path / "password")},
    ]
    upstreams = [
        {"name": f"up{number}.example", "url": "http://127.0.0.1:1", "credentials": login}
        for number, login in enumerate(credentials)
    ]
    (tmp_path / "c.yml").write_text(configured(server, proxy={"upstreams": upstreams}))
    (tmp_path / "secret.yml").write_text(PullSecret("pull", [server.host], "me").manifest("in-the-pull-secret"))
    ended = doctor(
        *("--config", "c.yml", "--bundle", "b.tar.gz", "--user", USER.name, "--password-stdin", "--root", "."),
        *("--pull-secret", "secret.yml", "--host", server.host),
        stdin=USER.password,
        EDGE_REGISTRY_STORAGE__S3__SECRET_KEY_FILE=str(tmp_path / "key"),
        EDGE_REGISTRY_STORAGE__S3__ACCESS_KEY="access",
    )
    assert ended.status == 1
    with tarfile.open(tmp_path / "b.tar.gz") as archive:
        members = {Path(member.name).name: archive.extractfile(member) for member in archive.getmembers()}
        pages = {name: file.read().decode() for name, file in members.items() if file is not None}
    everything = "\n".join(pages.values())
    assert server.certificates is not None
    hashed = (server.folder / "htpasswd").read_text().strip().partition(":")[2]
    keys = [line for line in (server.certificates / "server.key").read_text().splitlines() if "-" not in line]
    for secret in (
        USER.password,
        BROKEN_PASSWORD,
        "from-a-password-file",
        "secret-of-the-store",
        "in-the-pull-secret",
        hashed,
        *keys,
    ):
        assert secret
        assert secret not in everything
    assert set(pages) == {"report.txt", "report.json", "configuration.txt", "versions.txt", "metrics.txt"}
    assert "registry_http_requests_total" in pages["metrics.txt"]
    assert f"http.port = {server.port}  # file c.yml" in pages["configuration.txt"]
    assert "storage.s3.secret_key = ****" in pages["configuration.txt"]
    assert json.loads(pages["report.json"])["sound"] is False


def test_files_that_never_open_hold_nothing_up(doctor: Doctor, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fifo = str(tmp_path / "fifo")
    login = {"username": "me", "password_file": fifo}
    upstream = {"name": "up.example", "url": f"http://127.0.0.1:{free_port()}", "credentials": login}
    document = {
        "http": {"port": free_port(), "tls": {"certificate": fifo, "key": fifo}},
        "auth": {"htpasswd": fifo},
        "proxy": {"upstreams": [upstream]},
    }
    (tmp_path / "c.yml").write_text(json.dumps(document))
    options = ("--only", "configuration", "--only", "certificate", "--only", "upstreams", "--json")
    checks = json.loads(doctor("--config", "c.yml", *options).stdout)["checks"]
    assert {check["group"]: check["found"] for check in checks} == {
        "configuration": "no answer within 10 s",
        "certificate": "no answer within 10 s",
        "upstreams": "no answer within 5 s",
    }
    ended = doctor("--config", "fifo")
    assert (ended.status, ended.complaint) == (2, "the configuration cannot be read within 10 s")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "everything"], "'--only'"),
        (["--url", "registry.example"], "--url must be the URL"),
        (["--user", "me"], "--user and --password-stdin go together"),
        (["--host", "https://registry.example"], "is no registry such as"),
        (["--ca", "none"], "cannot read the authority none"),
    ],
)
def test_what_cannot_be_examined_is_one_line_and_status_2(doctor: Doctor, arguments: list[str], said: str) -> None:
    ended = doctor(*arguments)
    assert ended.status == 2
    assert said in ended.complaint

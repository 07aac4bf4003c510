import itertools
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from app.cli.serve import lines
from app.configuration import resolve
from app.settings import Settings
from tests.cli.conftest import Edge, environment
from tests.services.minio import MinioServer, free_port


def said(url: str, **sections: Any) -> str:
    return announced([url], **sections)


def announced(urls: list[str], **sections: Any) -> str:
    return "\n".join(text for _, text in lines(urls, resolve(Settings.model_validate(sections))))


def test_an_open_registry_says_so_and_shows_what_to_paste() -> None:
    text = said("http://127.0.0.1:5045")
    assert "docker push localhost:5045/library/alpine" in text
    assert "docker login" not in text
    assert "everybody on this machine may push" in text
    assert f"the folder {Path.cwd() / 'registry-data'}" in text
    assert "http://localhost:5045/docs" in text


def test_with_users_login_comes_first() -> None:
    text = said("http://0.0.0.0:5045", auth={"htpasswd": "users"}, storage={"s3": {"endpoint": "http://minio:9000"}})
    assert text.index("docker login localhost:5045") < text.index("docker tag")
    assert "the bucket registry-edge at http://minio:9000" in text
    assert "No password" not in text
    assert "setup certs" in text


def test_the_public_url_is_what_people_paste() -> None:
    http = {"public_url": "https://registry.example.com/", "host": "0.0.0.0"}
    text = said("http://0.0.0.0:5045", http=http, auth={"htpasswd": "users"})
    assert "docker login registry.example.com\n" in text
    assert "https://registry.example.com/docs" in text
    assert "setup certs" not in text


@pytest.mark.parametrize(
    ("anonymous", "warned"), [("push", "everybody who can reach it may push"), ("none", "no users")]
)
def test_a_registry_that_anybody_or_nobody_can_use_warns(anonymous: str, warned: str) -> None:
    assert warned in said("http://0.0.0.0:5045", http={"host": "0.0.0.0"}, auth={"anonymous": anonymous})


def test_memory_warns_that_nothing_stays() -> None:
    assert "gone when the server stops" in said("http://127.0.0.1:5045", storage={"driver": "memory"})


TWO = [
    {"port": 32000, "host": "0.0.0.0", "read_only": True, "anonymous": "pull"},
    {"port": 32001, "host": "0.0.0.0", "default_upstream": ""},
]
UPSTREAMS = [{"name": "docker.io", "url": "https://hub.example"}, {"name": "quay.io", "url": "https://quay.io"}]


def test_each_listener_is_said_with_what_it_is() -> None:
    proxy = {"upstreams": UPSTREAMS, "default_upstream": "docker.io"}
    urls = ["http://0.0.0.0:32000", "http://0.0.0.0:32001"]
    text = announced(urls, proxy=proxy, listeners=TWO, auth={"htpasswd": "users"})
    assert text.startswith(
        "Edge Registry listens on\n"
        "  http://0.0.0.0:32000  caching docker.io, read-only, no password\n"
        "  http://0.0.0.0:32001  caching, read and write, password\n"
    )
    assert "upstreams  docker.io (also for plain names), quay.io\n" in text
    assert "docker login localhost:32001" in text
    assert "docker push localhost:32001/library/alpine" in text
    assert "docker pull localhost:32001/docker.io/library/alpine" in text
    assert "Without a password at http://0.0.0.0:32000 everybody who can reach it may pull." in text
    assert "No password is asked" not in text


def test_a_cache_that_takes_no_pushes_shows_none() -> None:
    text = announced(["http://127.0.0.1:1"], proxy={"upstreams": UPSTREAMS[1:]}, listeners=[TWO[0] | {"port": 1}])
    assert "docker push" not in text
    assert "docker login" not in text
    assert "docker pull localhost:1/quay.io/PROJECT/IMAGE" in text


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_what_to_paste_listens_and_ends_quietly(tmp_path: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-m", "app", "serve", "--port", "0", "--root", "data"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        first = list(itertools.takewhile(lambda line: "No password is asked" not in line, process.stderr))
        found = re.search(r"listens on (http://127\.0\.0\.1:\d+)\n", "".join(first))
        assert found is not None, first
        with urllib.request.urlopen(f"{found[1]}/livez", timeout=10) as answer:
            assert answer.status == 200
        process.send_signal(end)
        rest = process.stderr.read()
        assert process.wait(30) in (0, 130, -signal.SIGTERM)
    assert f"  data  the folder {tmp_path / 'data'}\n" in first
    assert "Traceback" not in rest
    assert "Aborted" not in rest


def test_a_port_in_use_is_one_line(edge: Edge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = edge("serve", "--port", str(taken.getsockname()[1]))
    assert ended.status == 2
    assert "cannot listen on 127.0.0.1" in ended.complaint


def test_an_unreachable_store_is_one_line(edge: Edge) -> None:
    store = {"ENDPOINT": "http://127.0.0.1:1", "ACCESS_KEY": "key", "SECRET_KEY": "hush-hush"}
    ended = edge("serve", "--port", "0", **{f"EDGE_REGISTRY_STORAGE__S3__{name}": text for name, text in store.items()})
    assert ended.status == 2
    assert "cannot be reached" in ended.complaint
    assert "127.0.0.1" in ended.complaint
    assert "hush" not in ended.stderr


@pytest.mark.minio
def test_a_wrong_key_and_a_missing_bucket_are_one_line(edge: Edge, minio: MinioServer) -> None:
    store = {"ENDPOINT": minio.endpoint, "ACCESS_KEY": minio.access_key, "BUCKET": "not-there"}
    prefix = "EDGE_REGISTRY_STORAGE__S3__"
    environ = {f"{prefix}{name}": text for name, text in store.items()}
    missing = edge("serve", "--port", "0", **environ, **{f"{prefix}SECRET_KEY": minio.secret_key})
    assert missing.status == 2
    assert "not-there" in missing.complaint
    refused = edge("serve", "--port", "0", **environ, **{f"{prefix}SECRET_KEY": "not-the-secret"})
    assert refused.status == 2
    assert "not-the-secret" not in refused.complaint


def test_a_listener_that_cannot_be_is_named(edge: Edge) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = edge("serve", EDGE_REGISTRY_LISTENERS=f"[{{port: {free_port()}}}, {{port: {port}}}]")
    assert ended.status == 2
    assert ended.complaint.startswith(f"cannot listen on 127.0.0.1:{port} (listeners.1): ")

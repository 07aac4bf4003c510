import io
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
import yaml
from minio import Minio
from minio.commonconfig import CopySource
from minio.error import S3Error

from app.cli.bucket import policy
from tests.cli.conftest import Edge, Ended
from tests.services.minio import MinioServer

pytestmark = pytest.mark.minio


@pytest.fixture
def pool() -> Iterator[urllib3.PoolManager]:
    """Connections that end with the test."""
    with urllib3.PoolManager(retries=False, timeout=10) as manager:
        yield manager


@pytest.fixture
def name() -> str:
    return f"setup-{secrets.token_hex(4)}"


def client(store: dict[str, Any], pool: urllib3.PoolManager) -> Minio:
    host = urlsplit(store["endpoint"]).netloc
    keys = {"access_key": store["access_key"], "secret_key": store["secret_key"]}
    return Minio(host, **keys, secure=False, region="us-east-1", http_client=pool)


def administrator(minio: MinioServer) -> dict[str, str]:
    return {"MINIO_ROOT_USER": minio.access_key, "MINIO_ROOT_PASSWORD": minio.secret_key}


def set_up(edge: Edge, minio: MinioServer, name: str, *more: str) -> Ended:
    ended = edge("setup", "bucket", "--endpoint", minio.endpoint, "--bucket", name, *more, **administrator(minio))
    assert ended.status == 0, ended.stderr
    return ended


def pasted(ended: Ended) -> dict[str, Any]:
    """The store in the YAML that the command printed."""
    store: dict[str, Any] = yaml.safe_load(ended.stdout)["storage"]["s3"]
    return store


def put(data: Minio, bucket: str, key: str = "data/x") -> None:
    data.put_object(bucket, key, io.BytesIO(b"hello"), 5)


def test_the_new_user_works_in_its_bucket_and_in_no_other(
    edge: Edge, minio: MinioServer, pool: urllib3.PoolManager, name: str
) -> None:
    mine = client(pasted(set_up(edge, minio, name)), pool)
    set_up(edge, minio, f"{name}-b")
    put(mine, name)
    assert [entry.object_name for entry in mine.list_objects(name, recursive=True)] == ["data/x"]
    mine.remove_object(name, "data/x")
    put(mine, name, "original")
    mine.copy_object(name, "copy", CopySource(name, "original"))
    for attempt in (
        lambda: put(mine, f"{name}-b"),
        lambda: list(mine.list_objects(f"{name}-b")),
        lambda: mine.make_bucket(f"{name}-c"),
        lambda: mine.remove_bucket(name),
    ):
        with pytest.raises(S3Error, match="AccessDenied"):
            attempt()


def test_the_pasted_environment_is_the_pasted_file(edge: Edge, minio: MinioServer, name: str) -> None:
    ended = set_up(edge, minio, name)
    lines = [line.removeprefix("# ") for line in ended.stdout.splitlines() if "=" in line]
    variables = dict(line.split("=", 1) for line in lines)
    assert variables == {f"EDGE_REGISTRY_STORAGE__S3__{key.upper()}": value for key, value in pasted(ended).items()}
    assert edge("config", "show", **variables).status == 0


def test_a_second_run_changes_nothing_and_says_so(
    edge: Edge, minio: MinioServer, pool: urllib3.PoolManager, name: str
) -> None:
    store = pasted(set_up(edge, minio, name))
    put(client(store, pool), name)
    again = set_up(edge, minio, name)
    assert again.stdout == ""
    assert f"the bucket was there already: {name}" in again.stderr
    assert f"the user was there already: {name}" in again.stderr
    assert client(store, pool).get_object(name, "data/x").data == b"hello"


def test_a_given_secret_is_used_replaced_and_never_printed(
    edge: Edge, minio: MinioServer, pool: urllib3.PoolManager, name: str
) -> None:
    for secret in ("first-secret", "second-secret"):
        ended = set_up(edge, minio, name, "--access-key", f"u-{name}", "--secret-key", secret)
        assert secret not in ended.stdout + ended.stderr
        put(client({"endpoint": minio.endpoint, "access_key": f"u-{name}", "secret_key": secret}, pool), name)


def test_a_wrong_administrator_is_one_line(edge: Edge, minio: MinioServer, name: str) -> None:
    arguments = ["setup", "bucket", "--endpoint", minio.endpoint, "--bucket", name]
    wrong = edge(*arguments, MINIO_ROOT_USER=minio.access_key, MINIO_ROOT_PASSWORD="not-the-password")
    unknown = edge(*arguments, MINIO_ROOT_USER="nobody", MINIO_ROOT_PASSWORD="not-the-password")
    for ended in (wrong, unknown):
        assert ended.status == 1
        assert "does not know these administrator's keys" in ended.complaint
        assert "not-the-password" not in ended.stderr


def test_the_registrys_user_is_no_administrator(edge: Edge, minio: MinioServer, name: str) -> None:
    store = pasted(set_up(edge, minio, name))
    arguments = ["setup", "bucket", "--endpoint", minio.endpoint, "--bucket", f"{name}-b"]
    ended = edge(*arguments, MINIO_ROOT_USER=store["access_key"], MINIO_ROOT_PASSWORD=store["secret_key"])
    assert ended.status == 1
    assert "lets this user do no administration" in ended.complaint


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--secret-key", "short"], "secret key length"),
        (["--bucket", "B"], "bucket name"),
        (["--access-key", "x" * 21], "at most 20 characters"),
    ],
)
def test_what_minio_does_not_take_is_one_line(edge: Edge, minio: MinioServer, arguments: list[str], said: str) -> None:
    ended = edge("setup", "bucket", "--endpoint", minio.endpoint, *arguments, **administrator(minio))
    assert ended.status in (1, 2)
    assert said in ended.complaint


def test_nobody_at_the_endpoint_is_one_line(edge: Edge) -> None:
    keys = {"MINIO_ROOT_USER": "a", "MINIO_ROOT_PASSWORD": "b"}
    ended = edge("setup", "bucket", "--endpoint", "http://127.0.0.1:1", **keys)
    assert ended.status == 1
    assert "cannot reach MinIO at http://127.0.0.1:1: " in ended.complaint
    assert "refused" in ended.complaint


def test_the_administrators_keys_may_be_missing_or_in_a_file_that_is(edge: Edge) -> None:
    assert "MINIO_ROOT_PASSWORD" in edge("setup", "bucket", "--endpoint", "http://127.0.0.1:1").complaint
    ended = edge("setup", "bucket", "--admin-access-key", "a", "--admin-secret-key-file", "gone")
    assert (ended.status, ended.complaint) == (
        2,
        "cannot read the administrator's secret from gone: No such file or directory",
    )


def test_the_policy_names_its_bucket_and_nothing_else() -> None:
    resources = {resource for statement in policy("b")["Statement"] for resource in statement["Resource"]}
    assert resources == {"arn:aws:s3:::b", "arn:aws:s3:::b/*"}

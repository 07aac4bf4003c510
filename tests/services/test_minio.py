"""The services that tests start are there, and clean up."""

import minio as sdk
import pytest

from tests.services.minio import MinioServer, find_minio

pytestmark = pytest.mark.minio


def test_a_named_binary_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIO_BIN", "/somewhere/minio")
    assert find_minio() == "/somewhere/minio"


def test_a_bucket_is_there_and_empty(minio: MinioServer, bucket: str) -> None:
    client = sdk.Minio(minio.address, access_key=minio.access_key, secret_key=minio.secret_key, secure=False)
    assert client.bucket_exists(bucket)
    assert list(client.list_objects(bucket, recursive=True)) == []

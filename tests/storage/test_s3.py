"""The S3 driver passes the suite on a real MinIO."""

from collections.abc import AsyncIterator

import pytest

from storage.conformance import DriverConformance
from storage.s3 import S3Driver
from storage.settings import S3Settings
from tests.services.minio import MinioServer

pytestmark = pytest.mark.minio


def settings(minio: MinioServer, bucket: str, **given: object) -> S3Settings:
    """What connects a driver to the tests' MinIO."""
    fields = {
        "endpoint": minio.endpoint,
        "bucket": bucket,
        "access_key": minio.access_key,
        "secret_key": minio.secret_key,
        "buffer_bytes": 48 << 20,
    }
    return S3Settings.model_validate(fields | given)


class TestS3(DriverConformance):
    @pytest.fixture
    async def driver(self, minio: MinioServer, bucket: str) -> AsyncIterator[S3Driver]:
        driver = S3Driver(settings(minio, bucket))
        await driver.start()
        yield driver
        await driver.close()

    @pytest.fixture
    async def other(self, minio: MinioServer, bucket: str) -> AsyncIterator[S3Driver]:
        driver = S3Driver(settings(minio, bucket))
        await driver.start()
        yield driver
        await driver.close()

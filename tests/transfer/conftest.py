"""Stores that a CNCF Distribution and this registry have together."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings
from storage import Driver
from storage.filesystem import FilesystemDriver
from storage.s3 import S3Driver
from storage.settings import S3Settings
from tests.services.minio import MinioServer


@dataclass(frozen=True, slots=True)
class Place:
    """One store: as Distribution's configuration has it, with `root`, as the registry's settings do, and opened."""

    distribution: Mapping[str, Any]
    storage: Mapping[str, Any]
    driver: Driver
    root: str

    @property
    def settings(self) -> Settings:
        """A registry on this store."""
        return Settings.model_validate({"storage": self.storage})

    @property
    def environment(self) -> dict[str, str]:
        """The same for a process."""
        kind = self.storage["driver"]
        fields = {f"EDGE_REGISTRY_STORAGE__{kind}__{key}".upper(): text for key, text in self.storage[kind].items()}
        return {"EDGE_REGISTRY_STORAGE__DRIVER": kind, **fields}


@pytest.fixture
async def folder_place(tmp_path: Path) -> AsyncIterator[Place]:
    """A folder, Distribution's own."""
    folder = str(tmp_path / "shared")
    driver = FilesystemDriver(Path(folder))
    await driver.start()
    storage = {"driver": "filesystem", "filesystem": {"root": folder}}
    yield Place({"filesystem": {"rootdirectory": folder}}, storage, driver, "")
    await driver.close()


@pytest.fixture
async def bucket_place(minio: MinioServer, bucket: str) -> AsyncIterator[Place]:
    """A bucket, in which Distribution has a root of its own."""
    keys = {"access_key": minio.access_key, "secret_key": minio.secret_key}
    given = {"endpoint": minio.endpoint, "bucket": bucket, **keys}
    theirs = {"region": "us-east-1", "regionendpoint": minio.endpoint, "bucket": bucket, "forcepathstyle": True}
    theirs |= {"accesskey": minio.access_key, "secretkey": minio.secret_key, "rootdirectory": "/old/registry"}
    driver = S3Driver(S3Settings.model_validate(given))
    await driver.start()
    yield Place({"s3": theirs}, {"driver": "s3", "s3": given}, driver, "old/registry")
    await driver.close()


@pytest.fixture(params=["folder_place", pytest.param("bucket_place", marks=pytest.mark.minio)])
def place(request: pytest.FixtureRequest) -> Place:
    """Both of them in turn."""
    found: Place = request.getfixturevalue(request.param)
    return found

"""The filesystem driver passes the suite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.conformance import DriverConformance
from storage.filesystem import FilesystemDriver


class TestFilesystem(DriverConformance):
    @pytest.fixture
    async def driver(self, tmp_path: Path) -> AsyncIterator[FilesystemDriver]:
        driver = FilesystemDriver(tmp_path / "store")
        await driver.start()
        yield driver
        await driver.close()

    @pytest.fixture
    async def other(self, driver: FilesystemDriver, tmp_path: Path) -> AsyncIterator[FilesystemDriver]:
        other = FilesystemDriver(tmp_path / "store")
        await other.start()
        yield other
        await other.close()

"""The scripts with folders of their own; and a cluster apart from that of tests/k8s, whose names they would take."""

from pathlib import Path

import pytest

from tests.k8s.conftest import (
    cluster,
    hello_archive,
    minio_image,
    pytest_collection_modifyitems,
    pytest_configure,
    registry_image as registry_image,
)
from tests.setup.running import Setup

__all__ = ["cluster", "hello_archive", "minio_image", "pytest_collection_modifyitems", "pytest_configure"]


@pytest.fixture(scope="package")
def runtime() -> int:
    """Debian's containerd, 1.6, on the cluster's node."""
    return 1


@pytest.fixture
def alone(tmp_path: Path) -> Setup:
    """The scripts on a machine that knows no cluster."""
    return Setup(tmp_path)

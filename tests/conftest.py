"""Options and services that tests of every room share."""

import secrets
from collections.abc import Iterator

import minio as sdk
import pytest
import urllib3

from tests.services.minio import MinioServer, find_minio

pytest.register_assert_rewrite("storage.conformance")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--require-minio", action="store_true", help="fail, rather than skip, where no MinIO is found")
    parser.addoption("--require-clients", action="store_true", help="fail, rather than skip, where a client is missing")
    parser.addoption("--require-cluster", action="store_true", help="run what needs a Kubernetes; left out otherwise")
    parser.addoption("--all", action="store_true", help="run the slow tests as well, as CI does")


SLOW = (
    "tests/cli/test_doctor.py",
    "tests/cli/test_export.py",
    "tests/cli/test_import.py",
    "tests/cli/test_pin.py",
    "tests/cli/test_read_only.py",
    "tests/cli/test_verify.py",
    "tests/doctor/",
    "tests/nodes/test_kill.py",
    "tests/k8s/test_chart.py",
    "tests/k8s/test_render.py",
    "tests/proxy/test_restart.py",
    "tests/proxy/test_replicas.py",
    "tests/proxy/test_memory.py",
    "tests/replicas/test_faults.py",
    "tests/replicas/test_kills.py",
    "tests/replicas/test_outages.py",
    "tests/setup/",
    "tests/storage/test_s3_listing.py",
    "tests/transfer/test_adopt_command.py",
    "tests/transfer/test_backup.py",
    "tests/transfer/test_copy_killed.py",
    "tests/transfer/test_import_hostile.py",
    "tests/upkeep/test_race.py",
    "tests/upkeep/test_verify_disks.py",
    "tests/clients/test_adopt.py",
    "tests/clients/test_buildkit.py",
    "tests/clients/test_docker_containerd_store.py",
    "tests/clients/test_export.py",
    "tests/clients/test_import.py",
    "tests/clients/test_proxy_",
    "tests/clients/test_node_config.py",
)
"""What takes most of the time of a whole run; CI runs all of it."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(SLOW) or item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.slow)
            if not config.getoption("--all") and not config.args[0].startswith(item.nodeid.partition("::")[0]):
                item.add_marker(pytest.mark.skip(reason="slow: run with --all, or by name"))


@pytest.fixture(scope="session")
def minio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A MinIO server for the whole run."""
    binary = find_minio()
    if binary is None:
        reason = "no MinIO: set MINIO_BIN, put `minio` on PATH, or run scripts/test, which builds one"
        if request.config.getoption("--require-minio"):
            pytest.fail(reason)
        pytest.skip(reason)
    server = MinioServer(binary, tmp_path_factory.mktemp("minio"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def bucket(minio: MinioServer) -> Iterator[str]:
    """The name of a new, empty bucket; it is emptied and removed afterwards."""
    name = f"test-{secrets.token_hex(8)}"
    pool = urllib3.PoolManager(timeout=30, retries=urllib3.Retry(3, backoff_factor=0.1))
    client = sdk.Minio(
        minio.address, access_key=minio.access_key, secret_key=minio.secret_key, secure=False, http_client=pool
    )
    client.make_bucket(name)
    yield name
    names = [sdk.deleteobjects.DeleteObject(found.object_name) for found in client.list_objects(name, recursive=True)]
    failures = list(client.remove_objects(name, names))
    assert not failures, failures
    client.remove_bucket(name)
    pool.clear()

"""The cluster that the tests of this folder share, and the images in it."""

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.k8s.diagnosis import diagnose
from tests.k8s.scenario import write_image_archive
from tests.k8s.traces import Traces, take_back, traces
from tests.services.clients import CHECKOUT
from tests.services.cluster import Cluster
from tests.services.cluster.programs import built, missing
from tests.services.minio import find_minio
from tests.services.pod_image import IMAGE, MINIO_IMAGE, write_hello_image, write_minio_image, write_registry_image

IMAGE_CACHE = CHECKOUT / ".cache/images"
CLUSTER_SECONDS = 900
LARGE = 48 << 20
FAILED = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "cluster: needs a real Kubernetes; left out unless --require-cluster")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("cluster") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(CLUSTER_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to the report of a test that failed what the cluster says."""
    report = yield
    if report.failed and call.when == "call":
        item.stash[FAILED] = True
        cluster = item.funcargs.get("cluster")
        if isinstance(cluster, Cluster):
            report.sections.append(("the cluster", diagnose(cluster)))
    return report


@pytest.fixture(scope="package")
def runtime() -> int:
    """The generation of containerd on the cluster's node: what new clusters have. tests/setup has the other one."""
    return 2


@pytest.fixture(scope="package")
def cluster(
    request: pytest.FixtureRequest, runtime: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster for the tests of a folder, gone after the last of them; tests keep to namespaces of their own."""
    if not request.config.getoption("--require-cluster"):
        pytest.skip("the cluster is left out; `scripts/test --require-cluster` brings it")
    if reason := missing(runtime):
        pytest.fail(reason, pytrace=False)
    with Cluster(tmp_path_factory.mktemp("cluster"), containerd=runtime) as running:
        yield running


@pytest.fixture
def before(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Traces]:
    """What was there before the test; what a test that failed left is taken back, so that it fails alone."""
    found = traces(cluster)
    yield found
    if request.node.stash.get(FAILED, False):
        take_back(cluster, found)


@pytest.fixture(scope="package")
def hello_archive(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of the workload's image, `hello:test`."""
    return write_hello_image(tmp_path_factory.mktemp("hello") / "hello.tar", Path(built("hello")))


@pytest.fixture(scope="package")
def registry_image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of this checkout's image, which the node has."""
    cluster.import_image(write_registry_image(tmp_path_factory.mktemp("registry") / "image.tar", IMAGE_CACHE))
    return IMAGE


@pytest.fixture(scope="package")
def minio_image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of MinIO's image, which the node has."""
    program = find_minio()
    assert program is not None, "no MinIO: scripts/test builds one"
    cluster.import_image(write_minio_image(tmp_path_factory.mktemp("minio") / "image.tar", Path(program)))
    return MINIO_IMAGE


@pytest.fixture
def hello(tmp_path: Path) -> str:
    """An image that no test before had, so that the node has none of it; as podman names it."""
    return write_image_archive(tmp_path / "small", Path(built("hello")))


@pytest.fixture
def large(tmp_path: Path) -> str:
    """Another, which takes seconds to pull."""
    return write_image_archive(tmp_path / "large", Path(built("hello")), LARGE)

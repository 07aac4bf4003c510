"""`edge-registry copy`, killed half way on a real MinIO, and run again."""

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.cli.conftest import environment
from tests.services.client import digest_of
from tests.services.front import Fault, Front
from tests.services.minio import MinioServer
from tests.services.registry import RegistryServer, s3_store
from tests.services.upstreams import Distribution, need_distribution
from tests.transfer.copied import Here

pytestmark = pytest.mark.minio
MB: Final = 1 << 20


@pytest.fixture(scope="module")
def upstream(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Distribution]:
    with Distribution(need_distribution(request), tmp_path_factory.mktemp("upstream")) as found:
        yield found


@pytest.fixture
def front(upstream: Distribution) -> Iterator[Front]:
    with Front(upstream.url) as found:
        yield found


@pytest.fixture
def here(minio: MinioServer, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Here]:
    store = s3_store(minio.endpoint, bucket, minio.access_key, minio.secret_key)
    with RegistryServer(tmp_path / "here", store) as server:
        yield Here(server, store, capsys)


def begin(folder: Path, store: Mapping[str, str], *arguments: str) -> "subprocess.Popen[bytes]":
    with (folder / "copy.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "app", "copy", "--plain-http", *arguments],
            cwd=folder,
            env=environment(store),
            stdout=log,
            stderr=log,
        )


def killed(process: "subprocess.Popen[bytes]") -> None:
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_run_that_was_killed_leaves_no_broken_tag_and_goes_on_where_it_was(
    here: Here, front: Front, upstream: Distribution, tmp_path: Path
) -> None:
    images = {f"v{n}": upstream.pusher.image("team/app", f"v{n}", [2 * MB, 1 * MB], seed=str(n)) for n in range(8)}
    total = sum(len(data) for image in images.values() for data in image.blobs)
    front.rate = 6 * MB
    for share in (0.3, 0.6):
        process = begin(tmp_path, here.store, f"{front.host}/team/app")
        front.wait_until(lambda share=share: front.sent("/v2/*/blobs/*") > share * total, 60)  # type: ignore[misc]
        killed(process)
        for tag in here.tags("team/app"):
            assert here.pulls("team/app", tag) == images[tag].digest
    front.rate = None
    done = here.plain(f"{front.host}/team/app")
    assert done.status == 0, done.stderr
    assert {tag: here.pulls("team/app", tag) for tag in images} == {tag: images[tag].digest for tag in images}
    assert front.sent("/v2/*/blobs/*") < total + 2 * 6 * 2 * MB, "no more than what was on its way came twice"


def test_a_large_blob_goes_on_in_its_middle_after_a_kill(
    here: Here, front: Front, upstream: Distribution, tmp_path: Path
) -> None:
    image = upstream.pusher.image("team/big", "v1", [60 * MB])
    layer = f"/v2/team/big/blobs/{digest_of(max(image.blobs, key=len))}"
    front.on(layer, Fault(stall=40 * MB), times=1)
    process = begin(tmp_path, here.store, f"{front.host}/team/big:v1")
    front.wait_until(lambda: front.sent(layer) >= 40 * MB, 60)
    killed(process)
    assert here.tags("team/big") == []
    front.forget()
    done = here.plain(f"{front.host}/team/big:v1", "--json")
    assert done.status == 0, done.stderr
    assert here.pulls("team/big", "v1") == image.digest
    [again] = [request for request in front.requests if request.path == layer]
    assert again.headers.get("range") in ("bytes=16777216-", "bytes=33554432-"), again.headers
    assert front.sent(layer) <= 44 * MB

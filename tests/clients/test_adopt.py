"""A bucket that CNCF Distribution was filled in by real clients, taken over in place: all of it pulls, and the old goes on."""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import minio as sdk
import pytest

from tests.clients.attested import attest
from tests.clients.content import check_whole, is_there, tags_of
from tests.services.clients import Client
from tests.services.engines import MakeClient
from tests.services.images import Layout, write_image, write_index
from tests.services.minio import MinioServer
from tests.services.registry import RegistryServer, command, filesystem_store, s3_store
from tests.services.upstreams import Distribution, need_distribution

pytestmark = [pytest.mark.clients, pytest.mark.minio]

ROOT = "registry/prod"
Keys = Mapping[str, tuple[str, str]]


class Bucket:
    """One bucket that both registries have."""

    def __init__(self, minio: MinioServer, name: str) -> None:
        self._minio, self.name = minio, name
        self._client = sdk.Minio(minio.address, access_key=minio.access_key, secret_key=minio.secret_key, secure=False)
        self.settings = s3_store(minio.endpoint, name, minio.access_key, minio.secret_key)
        self.distribution = {
            "s3": {
                "region": "us-east-1",
                "regionendpoint": minio.endpoint,
                "bucket": name,
                "forcepathstyle": True,
                "accesskey": minio.access_key,
                "secretkey": minio.secret_key,
                "rootdirectory": f"/{ROOT}",
            },
            "redirect": {"disable": True},
        }

    def keys(self, prefix: str = "") -> Keys:
        """ETag and time of each object."""
        found = self._client.list_objects(self.name, prefix, recursive=True)
        return {str(one.object_name): (str(one.etag), str(one.last_modified)) for one in found}

    def adopt(self) -> dict[str, Any]:
        """One run; its report."""
        found: dict[str, Any] = json.loads(command("adopt", "--root", ROOT, "--json", settings=self.settings))
        return found


@pytest.fixture
def shared(minio: MinioServer, bucket: str) -> Bucket:
    return Bucket(minio, bucket)


@pytest.fixture
def old(shared: Bucket, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Distribution]:
    with Distribution(need_distribution(request), tmp_path / "old", storage=shared.distribution) as server:
        yield server


@pytest.fixture
def skopeo(make_client: MakeClient) -> Client:
    return make_client("skopeo", ("--insecure-policy",))


def build(docker: Client, folder: Path, busybox: bytes, name: str) -> None:
    """An image of one's own, built by docker; running it prints its name."""
    folder.mkdir()
    (folder / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/busybox\nCOPY name /name\nENTRYPOINT ["/bin/busybox", "cat", "/name"]\n'
    )
    (folder / "busybox").write_bytes(busybox)
    (folder / "busybox").chmod(0o755)
    (folder / "name").write_text(name)
    docker.run("build", "--quiet", "--tag", name, str(folder))
    docker.run("push", name)


def send(skopeo: Client, layout: Layout, target: str) -> None:
    skopeo.run("copy", "--quiet", "--all", "--dest-tls-verify=false", f"oci:{layout.folder}:{layout.tag}", target)


def manifest_at(skopeo: Client, registry: RegistryServer | Distribution, image: str) -> Any:
    """What a tag names, as skopeo reads it."""
    return skopeo.run("inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/{image}")


class Filled:
    """What was pushed into the old registry."""

    def __init__(self, old: Distribution, docker: Client, skopeo: Client, tmp_path: Path, busybox: bytes) -> None:
        self.said = fresh = secrets.token_hex(8)
        files = [{"bin/busybox": busybox}, {"etc/last": fresh.encode()}]
        build(docker, tmp_path / "context", busybox, f"{old.host}/built:v1")
        self.single = write_image(tmp_path / "single", files)
        send(skopeo, self.single, f"docker://{old.host}/team/app:v1")
        send(skopeo, self.single, f"docker://{old.host}/a/b/c/d/e:deep")
        plain = write_index(tmp_path / "index", {"amd64": files, "arm64": [{"etc/last": f"arm {fresh}".encode()}]})
        self.index, self.attestations = attest(plain)
        send(skopeo, self.index, f"docker://{old.host}/team/multi:latest")
        self.deleted = write_image(tmp_path / "deleted", [{"etc/last": f"deleted {fresh}".encode()}])
        send(skopeo, self.deleted, f"docker://{old.host}/team/app:gone")
        skopeo.run("delete", "--tls-verify=false", f"docker://{old.host}/team/app:gone")
        self.images = ("built:v1", "team/app:v1", "a/b/c/d/e:deep", "team/multi:latest")


@pytest.fixture
def filled(old: Distribution, docker: Client, skopeo: Client, tmp_path: Path, busybox: bytes) -> Filled:
    return Filled(old, docker, skopeo, tmp_path, busybox)


def check_pulls(
    registry: RegistryServer, filled: Filled, docker: Client, ctr: Client, skopeo: Client, tmp_path: Path
) -> None:
    """By docker, containerd and skopeo, with the digests that were pushed; two of them run."""
    host = registry.host
    docker.run("pull", f"{host}/built:v1")
    assert docker.run("run", "--rm", "--network", "none", f"{host}/built:v1").endswith("/built:v1")
    docker.run("pull", f"{host}/team/app:v1")
    docker.run("pull", f"{host}/team/multi@{filled.index.digest}")
    names = docker.run("inspect", "--format", "{{json .RepoDigests}}", f"{host}/team/app:v1")
    assert f"{host}/team/app@{filled.single.digest}" in names
    for image, digest in (("a/b/c/d/e:deep", filled.single.digest), ("team/multi:latest", filled.index.digest)):
        ctr.run("images", "pull", "--plain-http", f"{host}/{image}")
        assert digest in ctr.run("images", "list", f"name=={host}/{image}")
    # Pulled for all platforms, attestations would be unpacked, which containerd cannot.
    ctr.run("content", "fetch", "--all-platforms", "--plain-http", f"{host}/team/multi:latest")
    held = ctr.run("content", "list", "--quiet").splitlines()
    assert {filled.index.digest, *filled.attestations, *filled.index.layers} <= set(held)
    said = ctr.run("run", "--rm", f"{host}/a/b/c/d/e:deep", f"test-{secrets.token_hex(4)}")
    assert said == filled.said
    back = tmp_path / f"back-{secrets.token_hex(4)}"
    source = f"docker://{host}/team/multi:latest"
    skopeo.run("copy", "--quiet", "--all", "--src-tls-verify=false", source, f"oci:{back}:latest")
    kept = {path.name for path in (back / "blobs/sha256").iterdir()}
    digests = (filled.index.digest, *filled.attestations, *filled.index.layers)
    assert {digest.removeprefix("sha256:") for digest in digests} <= kept


def test_all_of_it_pulls_with_the_same_digests_no_byte_moves_and_the_old_registry_goes_on(
    shared: Bucket,
    old: Distribution,
    filled: Filled,
    docker: Client,
    ctr: Client,
    skopeo: Client,
    tmp_path: Path,
) -> None:
    before = shared.keys(f"{ROOT}/")
    report = shared.adopt()
    assert (report["repositories"], report["tags_written"]) == (4, 4)
    assert (report["left"]["count"], report["sparse"]["count"], report["blob_bytes_copied"]) == (0, 0, 0)
    print(json.dumps(report, indent=2))
    with RegistryServer(tmp_path / "new", shared.settings) as new:
        for image in filled.images:
            assert manifest_at(skopeo, new, image) == manifest_at(skopeo, old, image)
            check_whole(new, *image.split(":"))
        check_pulls(new, filled, docker, ctr, skopeo, tmp_path)
        assert tags_of(new, "team/app") == ["v1"]
        assert not is_there(new, "team/app", filled.deleted.digest)
        assert shared.keys(f"{ROOT}/") == before
        assert not shared.keys("data/"), "bytes were copied"

        old.stop()
        old.start()
        skopeo.run("copy", "--quiet", "--src-tls-verify=false", f"docker://{old.host}/team/app:v1", f"dir:{tmp_path}/d")
        newer = write_image(tmp_path / "newer", [{"etc/last": secrets.token_hex(8).encode()}])
        send(skopeo, newer, f"docker://{old.host}/team/app:v1")
        send(skopeo, newer, f"docker://{old.host}/team/new:v1")
        pushed_here = write_image(tmp_path / "here", [{"etc/last": secrets.token_hex(8).encode()}])
        send(skopeo, pushed_here, f"docker://{new.host}/a/b/c/d/e:deep")

        again = shared.adopt()
        assert (again["tags_moved"], again["tags_written"], again["manifests_written"]) == (1, 1, 2)
        assert [note["what"] for note in again["kept"]["notes"]] == []  # nothing changed there: nothing to decide
        assert check_whole(new, "team/app", "v1") == newer.digest
        assert check_whole(new, "team/new", "v1") == newer.digest
        assert check_whole(new, "a/b/c/d/e", "deep") == pushed_here.digest
        after = shared.keys(f"{ROOT}/")
        changed = {key for key, found in before.items() if after.get(key) != found}
        assert all("/team/app/_manifests/tags/v1/" in key for key in changed), changed  # the old one's own push


def age(folder: Path, days: int) -> None:
    """Dates every file back."""
    then = time.time() - days * 86_400
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def test_garbage_collection_afterwards_removes_nothing_that_it_should_keep(
    request: pytest.FixtureRequest, skopeo: Client, layout: Layout, index_layout: Layout, tmp_path: Path
) -> None:
    """In a folder, whose files can be dated back; nothing of the old registry's goes, whatever manifests need."""
    shared = tmp_path / "shared"
    store = {"filesystem": {"rootdirectory": str(shared)}}
    multi, _ = attest(index_layout)
    with Distribution(need_distribution(request), tmp_path / "old", storage=store) as old:
        send(skopeo, layout, f"docker://{old.host}/team/app:v1")
        send(skopeo, multi, f"docker://{old.host}/team/multi:latest")
        lonely = old.pusher.blob("team/app", b"of no manifest")
    before = contents(shared / "docker")
    settings = filesystem_store(shared)
    command("adopt", settings=settings)
    for _ in range(2):
        age(shared, 4)
        print(command("gc", settings=settings))
    assert contents(shared / "docker") == before
    with RegistryServer(tmp_path / "new", settings) as new:
        assert check_whole(new, "team/app", "v1") == layout.digest
        assert check_whole(new, "team/multi", "latest") == multi.digest
        assert new.request("HEAD", f"/v2/team/app/blobs/{lonely}").status == 404
    with Distribution(need_distribution(request), tmp_path / "again", storage=store) as old:
        skopeo.run("copy", "--quiet", "--src-tls-verify=false", f"docker://{old.host}/team/app:v1", f"dir:{tmp_path}/d")
        assert old.pusher.request("HEAD", f"/v2/team/app/blobs/{lonely}").status == 200


def contents(folder: Path) -> Mapping[str, str]:
    """The digest of each file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

"""The part that makes the bucket, against a real MinIO."""

import io
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import S3Error

from tests.services.minio import MinioServer
from tests.services.pushing import Pusher
from tests.services.registry import RegistryServer, s3_store
from tests.setup.running import Setup

pytestmark = pytest.mark.minio


class Store:
    """MinIO as its administrator sees it, and one bucket of it."""

    def __init__(self, server: MinioServer, bucket: str, pool: urllib3.PoolManager) -> None:
        self.bucket = bucket
        self._server, self._pool = server, pool
        keys = StaticProvider(server.access_key, server.secret_key)
        self.data = self.client(server.access_key, server.secret_key)
        self.admin = MinioAdmin(endpoint=server.address, credentials=keys, secure=False, http_client=pool)

    def client(self, access_key: str, secret_key: str) -> Minio:
        return Minio(
            self._server.address,
            access_key=access_key,
            secret_key=secret_key,
            secure=False,
            region="us-east-1",
            http_client=self._pool,
        )

    def held(self) -> set[str]:
        """What MinIO holds that is named after the bucket."""
        users = {f"user {name}" for name in json.loads(self.admin.user_list()) if self.bucket in name}
        policies = {f"policy {name}" for name in json.loads(self.admin.policy_list()) if self.bucket in name}
        buckets = {f"bucket {one.name}" for one in self.data.list_buckets() if self.bucket in one.name}
        return users | policies | buckets

    def all(self) -> set[str]:
        """What it holds once the part has run."""
        return {f"user {self.bucket}", f"policy edge-registry-{self.bucket}", f"bucket {self.bucket}"}


@pytest.fixture
def store(minio: MinioServer) -> Iterator[Store]:
    with urllib3.PoolManager(retries=False, timeout=10) as pool:
        yield Store(minio, f"setup-{secrets.token_hex(4)}", pool)


@pytest.fixture
def setup(tmp_path: Path, minio: MinioServer, store: Store) -> Setup:
    return Setup(
        tmp_path,
        REGISTRY_S3_ENDPOINT=minio.endpoint,
        REGISTRY_BUCKET=store.bucket,
        MINIO_ROOT_USER=minio.access_key,
        MINIO_ROOT_PASSWORD=minio.secret_key,
    )


def keys(setup: Setup) -> tuple[str, str]:
    return (setup.state / "s3-access-key").read_text(), (setup.state / "s3-secret-key").read_text()


def put(client: Minio, bucket: str, key: str = "data/x") -> None:
    client.put_object(bucket, key, io.BytesIO(b"hello"), 5)


def test_the_keys_it_leaves_work_in_the_bucket_and_nowhere_else(setup: Setup, store: Store) -> None:
    done = setup.succeed("bucket")
    access, secret = keys(setup)
    mine = store.client(access, secret)
    put(mine, store.bucket)
    with pytest.raises(S3Error, match="AccessDenied"):
        mine.make_bucket(f"{store.bucket}-other")
    assert store.held() == store.all()
    assert secret not in done.stdout + done.stderr
    assert {path.stat().st_mode & 0o077 for path in (setup.state, *setup.state.iterdir())} == {0}


def test_repeating_it_changes_nothing_and_says_nothing(setup: Setup, store: Store) -> None:
    setup.succeed("bucket")
    before = {path.name: path.read_bytes() for path in setup.state.iterdir()}
    done = setup.succeed("bucket")
    assert {path.name: path.read_bytes() for path in setup.state.iterdir()} == before
    assert (done.stdout, done.stderr) == ("", "")
    store.client(*keys(setup)).list_objects(store.bucket)
    assert setup.succeed("bucket", "--dry-run").would == []


def test_a_dry_run_names_everything_and_makes_nothing(setup: Setup, store: Store) -> None:
    would = setup.succeed("bucket", "--dry-run").would
    assert would == [
        f"make the bucket {store.bucket} in MinIO",
        f"make the user {store.bucket} in MinIO",
        f"make the policy edge-registry-{store.bucket} in MinIO",
        *(f"write {setup.state}/{name}" for name in ("record", "s3-access-key", "s3-secret-key")),
    ]
    assert store.held() == set()
    assert not setup.state.exists()


def test_uninstalling_leaves_nothing(setup: Setup, store: Store) -> None:
    setup.succeed("bucket")
    setup.succeed("bucket", "--uninstall", "--dry-run")
    assert store.held() == store.all()
    setup.succeed("bucket", "--uninstall")
    assert store.held() == set()
    assert not setup.state.exists()
    setup.succeed("bucket", "--uninstall")


def test_a_bucket_with_content_goes_only_when_that_is_asked_for(setup: Setup, store: Store) -> None:
    setup.succeed("bucket")
    put(store.data, store.bucket)
    said = setup.succeed("bucket", "--uninstall").stderr
    assert f"keep the bucket {store.bucket}, which has content; --delete-data removes it" in said
    assert store.held() == {f"bucket {store.bucket}"}
    setup.succeed("bucket", "--uninstall", "--delete-data")
    assert store.held() == set()
    assert not setup.state.exists()


def test_a_bucket_in_which_a_registry_ran_and_nobody_pushed_is_taken_back(
    setup: Setup, store: Store, minio: MinioServer, tmp_path: Path
) -> None:
    setup.succeed("bucket")
    access, secret = keys(setup)
    with RegistryServer(tmp_path / "registry", s3_store(minio.endpoint, store.bucket, access, secret)) as server:
        # A key that signs the upload is made, and the upload is given up.
        assert Pusher(server.url).request("POST", "/v2/team/app/blobs/uploads/").status == 202
    assert list(store.data.list_objects(store.bucket, recursive=True))
    said = setup.succeed("bucket", "--uninstall").stderr
    assert f"remove the bucket {store.bucket} from MinIO" in said
    assert store.held() == set()


@pytest.mark.parametrize("key", ["upkeep/quarantine/x", "upkeepers/x", "catalog/x!"])
def test_whatever_is_not_upkeep_alone_keeps_the_bucket_whole(setup: Setup, store: Store, key: str) -> None:
    setup.succeed("bucket")
    for name in ("upkeep/keys/x", key):
        put(store.data, store.bucket, name)
    setup.succeed("bucket", "--uninstall")
    held = {one.object_name for one in store.data.list_objects(store.bucket, recursive=True)}
    assert held == {"upkeep/keys/x", key}
    setup.succeed("bucket", "--uninstall", "--delete-data")
    assert store.held() == set()


def test_a_bucket_that_was_there_before_is_used_and_stays(setup: Setup, store: Store) -> None:
    store.data.make_bucket(store.bucket)
    setup.succeed("bucket")
    put(store.client(*keys(setup)), store.bucket)
    setup.succeed("bucket", "--uninstall", "--delete-data")
    assert store.held() == {f"bucket {store.bucket}"}
    assert [one.object_name for one in store.data.list_objects(store.bucket, recursive=True)] == ["data/x"]


def test_a_user_of_others_is_not_given_another_key(setup: Setup, store: Store, tmp_path: Path) -> None:
    store.admin.user_add(store.bucket, "a key of theirs")
    said = setup.fail("bucket")
    assert f"MinIO has a user {store.bucket} that this script did not make" in said
    assert store.held() == {f"user {store.bucket}"}
    (tmp_path / "key").write_text("a key of theirs\n")
    setup.succeed("bucket", "--secret-key-file", str(tmp_path / "key"))
    put(store.client(store.bucket, "a key of theirs"), store.bucket)
    setup.succeed("bucket", "--uninstall", "--delete-data")
    assert store.held() == {f"user {store.bucket}"}


def test_uninstalling_goes_by_what_was_made_and_not_by_what_is_said_now(setup: Setup, store: Store) -> None:
    setup.succeed("bucket")
    setup.succeed("bucket", "--uninstall", "--bucket", "another-one")
    assert store.held() == set()


def test_wrong_keys_of_the_administrator_are_one_line_without_them(setup: Setup) -> None:
    said = setup.fail("bucket", MINIO_ROOT_PASSWORD="a wrong guess")
    assert said.startswith("store: MinIO at http://127.0.0.1:")
    assert "a wrong guess" not in said


def test_without_an_administrator_it_says_what_it_wants(alone: Setup) -> None:
    assert "set MINIO_ROOT_USER and MINIO_ROOT_PASSWORD, or make the secret edge-storage/minio-root" in alone.fail(
        "bucket"
    )

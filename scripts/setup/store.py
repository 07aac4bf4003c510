"""What MinIO holds of the registry, and taking it back: bucket, user and policy that `edge-registry setup bucket` made.

`store.py status` prints which are there, `store.py remove WHAT...` removes them, `store.py has-content` says yes where the
bucket holds more than what a registry without images leaves there, `store.py secret` makes up a secret. The environment
says where: REGISTRY_MINIO, REGISTRY_BUCKET, REGISTRY_ACCESS_KEY, REGISTRY_REGION, MINIO_ROOT_USER and MINIO_ROOT_PASSWORD.
"""

import json
import os
import secrets
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.error import MinioAdminException, MinioException, S3Error

UPKEEP, QUARANTINE = "upkeep/", "upkeep/quarantine/"
"""Where the registry keeps keys, leases and reports of its own, and where what it found damaged; app/registry/keys.py."""
MISSING = frozenset({"XMinioAdminNoSuchUser", "XMinioAdminNoSuchPolicy"})


class Store:
    """The store as its administrator sees it."""

    def __init__(self) -> None:
        parts = urlsplit(os.environ["REGISTRY_MINIO"])
        secure = parts.scheme == "https"
        keys = StaticProvider(os.environ["MINIO_ROOT_USER"], os.environ["MINIO_ROOT_PASSWORD"])
        pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=30), retries=urllib3.Retry(2))
        region = os.environ["REGISTRY_REGION"]
        self._data = Minio(parts.netloc, credentials=keys, secure=secure, region=region, http_client=pool)
        self._admin = MinioAdmin(
            endpoint=parts.netloc, credentials=keys, secure=secure, region=region, http_client=pool
        )
        self.bucket = os.environ["REGISTRY_BUCKET"]
        self.user = os.environ["REGISTRY_ACCESS_KEY"]
        self.policy = f"edge-registry-{self.bucket}"

    def status(self) -> dict[str, bool]:
        """Which of the three are there."""
        return {
            "bucket": self._data.bucket_exists(self.bucket),
            "user": self._there("user_info", self.user),
            "policy": self._there("policy_info", self.policy),
        }

    def has_content(self) -> bool:
        """Whether there is an object in the bucket, or a version of one, that is not the registry's own upkeep."""
        return any(not own(one) for one in self._objects())

    def remove_bucket(self, *, content: bool) -> None:
        """Removes the bucket; with `content`, all that is in it, else upkeep alone.

        Raises S3Error where something is left in it, as what was pushed meanwhile.
        """
        names = (DeleteObject(str(one.object_name), one.version_id) for one in self._objects() if content or own(one))
        failures = list(self._data.remove_objects(self.bucket, names))
        if failures:
            sys.exit(f"store: {len(failures)} objects could not be deleted, the first for: {failures[0].message}")
        self._data.remove_bucket(self.bucket)

    def _objects(self) -> Iterator[Object]:
        """Every object with every version of it."""
        found: Iterator[Object] = self._data.list_objects(self.bucket, recursive=True, include_version=True)
        return found

    def remove_user(self) -> None:
        """Removes the registry's user."""
        self._admin.user_remove(self.user)

    def remove_policy(self) -> None:
        """Takes the policy from the registry's user, where that stays, and removes it."""
        if self._there("user_info", self.user):
            try:
                self._admin.detach_policy([self.policy], user=self.user)
            except MinioAdminException as error:
                if "PolicyChangeAlreadyApplied" not in str(error):
                    raise
        self._admin.policy_remove(self.policy)

    def _there(self, question: str, name: str) -> bool:
        try:
            getattr(self._admin, question)(name)
        except MinioAdminException as error:
            if any(code in str(error) for code in MISSING):
                return False
            raise
        return True


def own(one: Object) -> bool:
    """Whether the registry wrote it for itself, so that nobody misses it where the registry goes."""
    key = one.object_name or ""
    return key.startswith(UPKEEP) and not key.startswith(QUARANTINE)


def main(verb: str, *what: str) -> None:
    """One verb; the exit status is 1, with one line, where MinIO refuses or is away."""
    if verb == "secret":
        print(secrets.token_urlsafe(30))
        return
    store = Store()
    if verb == "status":
        found = store.status()
        print(" ".join(name for name, there in found.items() if there))
    elif verb == "has-content":
        print("yes" if store.has_content() else "")
    else:
        for name in what:
            if name == "bucket":
                store.remove_bucket(content="content" in what)
            elif name == "user":
                store.remove_user()
            elif name == "policy":
                store.remove_policy()


def reason(error: Exception) -> str:
    """One line without keys."""
    if isinstance(error, MinioAdminException):
        body = str(error).partition("Body: ")[2]
        try:
            return str(json.loads(body).get("Message", "it refuses"))
        except ValueError:
            return "it refuses, or is no MinIO"
    return (error.message or "it refuses") if isinstance(error, S3Error) else type(error).__name__


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (MinioException, MinioAdminException, urllib3.exceptions.HTTPError, ValueError) as problem:
        sys.exit(f"store: MinIO at {os.environ['REGISTRY_MINIO']}: {reason(problem)}")

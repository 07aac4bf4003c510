"""The bucket of the registry in MinIO, with the one user that may work in it."""

import json
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException, MinioException, S3Error
from urllib3.exceptions import HTTPError, MaxRetryError

from app.cli.output import Failure
from app.errors import StartError
from storage.settings import S3Settings

T = TypeVar("T")

_BUCKET_ACTIONS: Final = ("s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads")
_OBJECT_ACTIONS: Final = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)
_LONGEST_ACCESS_KEY: Final = 20
_REFUSED: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "XMinioInvalidIAMCredentials"})


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one run did; `secret_key` is set only when it was made here."""

    access_key: str
    secret_key: str | None
    made_bucket: bool
    made_user: bool


def policy(bucket: str) -> dict[str, Any]:
    """All that the registry does with its bucket, and nothing with any other."""
    arn = f"arn:aws:s3:::{bucket}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": list(_BUCKET_ACTIONS), "Resource": [arn]},
            {"Effect": "Allow", "Action": list(_OBJECT_ACTIONS), "Resource": [f"{arn}/*"]},
        ],
    }


def prepare(store: S3Settings, admin_access_key: str, admin_secret_key: str) -> Prepared:
    """Makes bucket, policy and user where they are missing; blocks for seconds.

    The user is `store.access_key`, else it is called like the bucket; it gets `store.secret_key`, else, when it is new,
    a secret made here. Raises StartError for settings that cannot work, Failure when MinIO is away or refuses.
    """
    access_key = store.access_key or store.bucket
    if len(access_key) > _LONGEST_ACCESS_KEY:
        raise StartError(f"MinIO takes access keys of at most {_LONGEST_ACCESS_KEY} characters: give an --access-key")
    if access_key == admin_access_key:
        raise StartError("the registry's access key must not be the administrator's: give another --access-key")
    data, admin = _clients(store, admin_access_key, admin_secret_key)
    known = _asked(store, lambda: _has_user(admin, access_key))
    made_bucket = _asked(store, lambda: _make_bucket(data, store.bucket))
    made = None if known or store.secret_key else secrets.token_urlsafe(30)
    secret = store.secret_key.get_secret_value() if store.secret_key else made
    name = f"edge-registry-{store.bucket}"
    _asked(store, lambda: admin.policy_add(name, policy=policy(store.bucket)))
    if secret is not None:
        _asked(store, lambda: admin.user_add(access_key, secret))
    _asked(store, lambda: _attach(admin, name, access_key))
    return Prepared(access_key, made, made_bucket, not known)


def _clients(store: S3Settings, access_key: str, secret_key: str) -> tuple[Minio, MinioAdmin]:
    parts = urlsplit(store.endpoint or "")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise StartError("storage.s3.endpoint must be the URL of MinIO, such as http://minio:9000; pass --endpoint")
    pool = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=5, read=30),
        retries=urllib3.Retry(total=2, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        cert_reqs="CERT_REQUIRED" if store.verify else "CERT_NONE",
        ca_certs=str(store.ca or certifi.where()),
    )
    credentials = StaticProvider(access_key, secret_key)
    secure = parts.scheme == "https"
    try:
        return (
            Minio(parts.netloc, credentials=credentials, secure=secure, region=store.region, http_client=pool),
            MinioAdmin(
                endpoint=parts.netloc, credentials=credentials, secure=secure, region=store.region, http_client=pool
            ),
        )
    except ValueError as error:
        raise StartError(f"storage.s3: {error}") from None


def _has_user(admin: MinioAdmin, access_key: str) -> bool:
    try:
        admin.user_info(access_key)
    except MinioAdminException as error:
        if _answer(error)[0] == "XMinioAdminNoSuchUser":
            return False
        raise
    return True


def _make_bucket(data: Minio, bucket: str) -> bool:
    if data.bucket_exists(bucket):
        return False
    data.make_bucket(bucket)
    return True


def _attach(admin: MinioAdmin, name: str, access_key: str) -> None:
    try:
        admin.attach_policy([name], user=access_key)
    except MinioAdminException as error:
        if _answer(error)[0] != "XMinioAdminPolicyChangeAlreadyApplied":
            raise


def _asked(store: S3Settings, request: Callable[[], T]) -> T:
    """One request; what MinIO or the way to it says against it becomes one line, without keys."""
    try:
        return request()
    except MinioAdminException as error:
        code, message = _answer(error)
    except S3Error as error:
        code, message = error.code or "", error.message or ""
    except (HTTPError, MinioException) as error:
        reason = error.reason if isinstance(error, MaxRetryError) else error
        text = re.sub(r"^.*?<[^>]*>:? ?|^\w+\(.*?\): ?", "", str(reason))
        raise Failure(f"cannot reach MinIO at {store.endpoint}: {text}") from None
    except ValueError as error:  # the SDK checks names itself
        raise StartError(f"storage.s3: {error}") from None
    if code in _REFUSED:
        raise Failure(f"MinIO at {store.endpoint} does not know these administrator's keys ({code})")
    if code in ("AccessDenied", "XMinioAdminAccessDenied"):
        raise Failure(f"MinIO at {store.endpoint} lets this user do no administration ({code})")
    raise Failure(f"MinIO at {store.endpoint} refuses: {' '.join(message.split())} ({code})")


def _answer(error: MinioAdminException) -> tuple[str, str]:
    """Code and message of an answer of the admin API; the SDK offers them in its text only."""
    status, _, body = str(error).partition("Status: ")[2].partition(", Body: ")
    try:
        document = json.loads(body)
    except ValueError:
        return f"HTTP {status}", "no MinIO answered there"
    return str(document.get("Code", f"HTTP {status}")), str(document.get("Message", ""))

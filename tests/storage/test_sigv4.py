"""The signer agrees with botocore's, request for request."""

from typing import Any
from urllib.parse import parse_qsl, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import example, given, settings, strategies as st

from storage.sigv4 import UNSIGNED, Keys, Signer, encode_path, encode_query

HOST, REGION = "minio.example:9000", "eu-central-1"
NOW = 1_800_000_000.0

paths = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60).map("/bucket/".__add__)
names = st.sampled_from(
    ["prefix", "start-after", "uploadId", "partNumber", "delete", "list-type", "A", "a", "~", "é", "x-id"]
)
values = st.text(st.characters(min_codepoint=32, max_codepoint=400), max_size=30)
queries = st.dictionaries(names, values, max_size=5)
headers = st.dictionaries(
    st.sampled_from(["range", "if-match", "if-none-match", "content-md5", "x-amz-copy-source", "x-amz-meta-a"]),
    st.text('abcXYZ019-=/"*%_.', min_size=1, max_size=30),
    max_size=4,
)
keys = st.builds(Keys, st.text("ABC019", min_size=1), st.text(min_size=1), st.none() | st.text("abc/+=", min_size=1))
methods = st.sampled_from(["GET", "HEAD", "PUT", "POST", "DELETE"])


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime

    moment = datetime.datetime.fromtimestamp(NOW, datetime.UTC)
    for name in ("get_current_datetime", "_get_current_datetime"):
        if hasattr(botocore.auth, name):
            monkeypatch.setattr(botocore.auth, name, lambda *_, **__: moment.replace(tzinfo=None))


def theirs(auth: Any, request: AWSRequest) -> AWSRequest:
    auth.add_auth(request)
    return request


@settings(max_examples=150, deadline=None)
@given(methods, paths, queries, headers, keys)
@example("GET", "/bucket/a b~(é)//..", {"prefix": "a/b +é~", "delete": ""}, {"range": "bytes=0-"}, Keys("A", "s", "t"))
def test_signed_headers_are_botocores(
    method: str, path: str, query: dict[str, str], sent: dict[str, str], found: Keys
) -> None:
    encoded, text = encode_path(path), encode_query(query)
    ours = Signer(HOST, REGION).headers(found, method, encoded, text, sent, NOW)
    request = AWSRequest(method, f"http://{HOST}{encoded}?{text}", headers={**sent, "X-Amz-Content-SHA256": UNSIGNED})
    request.context["payload_signing_enabled"] = False
    request.context["client_config"] = None
    auth = botocore.auth.S3SigV4Auth(Credentials(found.access, found.secret, found.token), "s3", REGION)
    auth.payload = lambda _: UNSIGNED
    theirs(auth, request)
    assert ours["authorization"] == request.headers["Authorization"]
    assert ours["x-amz-date"] == request.headers["X-Amz-Date"]


@settings(max_examples=150, deadline=None)
@given(methods, paths, queries, headers, keys, st.integers(1, 604800))
def test_presigned_queries_are_botocores(
    method: str, path: str, query: dict[str, str], sent: dict[str, str], found: Keys, lifetime: int
) -> None:
    encoded = encode_path(path)
    ours = Signer(HOST, REGION).query(found, method, encoded, query, sent, NOW, lifetime)
    request = AWSRequest(method, f"http://{HOST}{encoded}", params=dict(query), headers=dict(sent))
    credentials = Credentials(found.access, found.secret, found.token)
    theirs(botocore.auth.S3SigV4QueryAuth(credentials, "s3", REGION, lifetime), request)
    expected = dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True))
    assert dict(parse_qsl(ours, keep_blank_values=True)) == expected


def test_the_derived_key_follows_the_day_and_the_secret() -> None:
    signer = Signer(HOST, REGION)
    for keys_now, now in ((Keys("A", "one"), NOW), (Keys("A", "two"), NOW), (Keys("A", "two"), NOW + 86400)):
        fresh = Signer(HOST, REGION).headers(keys_now, "GET", "/b", "", {}, now)
        assert signer.headers(keys_now, "GET", "/b", "", {}, now) == fresh


def test_keys_never_show_their_secrets() -> None:
    assert "hush" not in repr(Keys("access", "hush", "hush-token"))

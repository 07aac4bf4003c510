"""What docker's, podman's and Kubernetes' files of logins say about a host."""

import base64
import json
from typing import Any

import pytest

from app.proxy.credentials import Login
from app.proxy.credentials.config import helper_key, parse


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def login(content: dict[str, Any], host: str) -> Login | None:
    return parse(json.dumps(content).encode()).login(host)


@pytest.mark.parametrize(
    "key",
    [
        "registry.example:5000",
        "https://registry.example:5000",
        "http://registry.example:5000/v2/",
        "https://registry.example:5000/v1/",
        "REGISTRY.example:5000/",
    ],
)
def test_a_host_is_found_however_its_key_is_written(key: str) -> None:
    assert login({"auths": {key: auth("me", "a:b")}}, "registry.example:5000") == Login("me", "a:b")


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"])
@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_all_names_of_docker_hub_are_one(key: str, host: str) -> None:
    assert login({"auths": {key: auth("me", "hub")}}, host) == Login("me", "hub")


def test_docker_hubs_own_entry_goes_before_the_tokens_that_docker_keeps_beside_it() -> None:
    entries = {
        "https://index.docker.io/v1/access-token": auth("me", "access"),
        "https://index.docker.io/v1/refresh-token": auth("me", "refresh"),
        "https://index.docker.io/v1/": auth("me", "right"),
    }
    assert login({"auths": entries}, "registry-1.docker.io") == Login("me", "right")


@pytest.mark.parametrize(
    "host", ["registry.example", "registry.example:5001", "other.registry.example:5000", "example"]
)
def test_another_host_gets_nothing(host: str) -> None:
    assert login({"auths": {"registry.example:5000": auth("me", "a")}}, host) is None


def test_the_hosts_own_entry_goes_before_those_of_its_paths() -> None:
    entries = {"quay.io/team/app": auth("robot", "deep"), "quay.io": auth("me", "wide")}
    assert login({"auths": entries}, "quay.io") == Login("me", "wide")


def test_without_one_the_shortest_path_is_taken() -> None:
    entries = {"quay.io/team/app": auth("robot", "deep"), "quay.io/team": auth("team", "wide")}
    assert login({"auths": entries}, "quay.io") == Login("team", "wide")


def test_an_identity_token_goes_before_the_password() -> None:
    entry = auth("00000000-0000-0000-0000-000000000000", "") | {"identitytoken": "refresh-me"}
    assert login({"auths": {"acr.example": entry}}, "acr.example") == Login("<token>", "refresh-me")


def test_an_image_pull_secret_without_auth_is_understood() -> None:
    entry = {"username": "me", "password": "hush", "email": "me@example"}
    assert login({"auths": {"registry.example": entry}}, "registry.example") == Login("me", "hush")


@pytest.mark.parametrize(
    ("host", "found"),
    [("eu.gcr.io", True), ("gcr.io", False), ("a.eu.gcr.io", False), ("eu.gcr.io.evil", False), ("eu-gcr.io", False)],
)
def test_a_pattern_of_an_image_pull_secret_stands_for_one_label(host: str, found: bool) -> None:
    assert (login({"auths": {"*.gcr.io": auth("me", "a")}}, host) is not None) == found


def test_the_old_file_without_auths_is_understood() -> None:
    assert login({"registry.example": auth("me", "old") | {"email": ""}}, "registry.example") == Login("me", "old")


def test_an_empty_entry_is_nobody() -> None:
    assert login({"auths": {"registry.example": {}}}, "registry.example") is None


@pytest.mark.parametrize("entry", [{"auth": "!!"}, {"auth": "bm9jb2xvbg=="}, {"auth": "//8="}, "text"])
def test_a_broken_entry_breaks_no_other(entry: Any) -> None:
    content = {"auths": {"bad.example": entry, "good.example": auth("me", "a")}}
    assert login(content, "good.example") == Login("me", "a")
    with pytest.raises(ValueError, match=r"^(is|holds) ") as raised:
        login(content, "bad.example")
    assert "bm9jb2xvbg" not in str(raised.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"auths": [1]}', b'{"credsStore": {"a": 1}}', b"\xff"])
def test_a_file_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^is "):
        parse(data)


def test_a_host_has_its_own_helper_else_the_one_for_all() -> None:
    content = {"credHelpers": {"gcr.io": "gcloud", "https://index.docker.io/v1/": "hub"}, "credsStore": "pass"}
    config = parse(json.dumps(content).encode())
    assert config.helper("gcr.io") == "gcloud"
    assert config.helper("registry-1.docker.io") == "hub"
    assert config.helper("quay.io") == "pass"
    assert parse(b'{"auths": {}}').helper("quay.io") is None


def test_a_helper_knows_docker_hub_by_its_old_name() -> None:
    assert helper_key("registry-1.docker.io") == "https://index.docker.io/v1/"
    assert helper_key("quay.io") == "quay.io"


def test_a_file_shows_no_secret() -> None:
    config = parse(json.dumps({"auths": {"registry.example": {"identitytoken": "hush"}}}).encode())
    assert "hush" not in repr(config)

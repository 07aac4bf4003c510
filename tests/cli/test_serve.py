from pathlib import Path
from typing import Any

import pytest

from app.cli.serve import lines
from app.configuration import resolve
from app.settings import Settings


def said(url: str, **sections: Any) -> str:
    return "\n".join(text for _, text in lines(url, resolve(Settings.model_validate(sections))))


def test_an_open_registry_says_so_and_shows_what_to_paste() -> None:
    text = said("http://127.0.0.1:5045")
    assert "docker push localhost:5045/library/alpine" in text
    assert "docker login" not in text
    assert "everybody on this machine may push" in text
    assert f"the folder {Path.cwd() / 'registry-data'}" in text
    assert "http://localhost:5045/docs" in text


def test_with_users_login_comes_first() -> None:
    text = said("http://0.0.0.0:5045", auth={"htpasswd": "users"}, storage={"s3": {"endpoint": "http://minio:9000"}})
    assert text.index("docker login localhost:5045") < text.index("docker tag")
    assert "the bucket registry-edge at http://minio:9000" in text
    assert "No password" not in text
    assert "setup certs" in text


def test_the_public_url_is_what_people_paste() -> None:
    http = {"public_url": "https://registry.example.com/", "host": "0.0.0.0"}
    text = said("http://0.0.0.0:5045", http=http, auth={"htpasswd": "users"})
    assert "docker login registry.example.com\n" in text
    assert "https://registry.example.com/docs" in text
    assert "setup certs" not in text


@pytest.mark.parametrize(
    ("anonymous", "warned"), [("push", "everybody who can reach it may push"), ("none", "no users")]
)
def test_a_registry_that_anybody_or_nobody_can_use_warns(anonymous: str, warned: str) -> None:
    assert warned in said("http://0.0.0.0:5045", http={"host": "0.0.0.0"}, auth={"anonymous": anonymous})


def test_memory_warns_that_nothing_stays() -> None:
    assert "gone when the server stops" in said("http://127.0.0.1:5045", storage={"driver": "memory"})

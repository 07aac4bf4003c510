import base64
import json
from pathlib import Path

import pytest

from app.doctor.names import Host
from app.doctor.over_http import Login
from app.doctor.pull_secret import examine_pull_secret
from app.doctor.report import Check, Verdict
from app.nodes.pull_secret import PullSecret
from tests.doctor.verdicts import bad, the_one

HOSTS = [Host("192.0.2.7:5045", "https"), Host("registry.example", "https")]
PASSWORD = "correct-horse"


async def let_in(login: Login) -> bool | None:
    return login == Login("me", PASSWORD)


async def cannot_be_tried(_login: Login) -> bool | None:
    return None


async def examined(tmp_path: Path, text: str, trial: object = let_in) -> list[Check]:
    path = tmp_path / "secret.yaml"
    path.write_text(text)
    checks, passwords = await examine_pull_secret(path, HOSTS, trial)  # type: ignore[arg-type]
    assert PASSWORD not in repr(checks)
    assert set(passwords) <= {PASSWORD, "wrong-one"}
    return checks


def secret(password: str = PASSWORD, servers: tuple[str, ...] = ("192.0.2.7:5045", "registry.example")) -> str:
    return PullSecret("pull", servers, "me", None).manifest(password)


async def test_a_secret_that_pull_secret_prints_is_sound(tmp_path: Path) -> None:
    assert bad(await examined(tmp_path, secret())) == []


async def test_what_is_in_a_secret_is_taken_as_well(tmp_path: Path) -> None:
    auth = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    config = {"auths": {"https://192.0.2.7:5045/v2/": {"auth": auth}, "registry.example": {"auth": auth}}}
    assert bad(await examined(tmp_path, json.dumps(config))) == []


async def test_a_wrong_password_is_one_failure_that_names_the_servers(tmp_path: Path) -> None:
    check = the_one(await examined(tmp_path, secret("wrong-one")))
    assert check.found == "the registry refuses the login of me for 192.0.2.7:5045, registry.example"
    assert check.fix is not None
    assert check.fix.startswith("edge-registry pull-secret NAME --server 192.0.2.7:5045 --server registry.example")


async def test_a_secret_for_another_server_says_for_which(tmp_path: Path) -> None:
    check = the_one(await examined(tmp_path, secret(servers=("192.0.2.7:5045", "other.example:443"))))
    assert check.found.startswith("it holds no login for registry.example, but for 192.0.2.7:5045, other.example:443")


async def test_a_login_that_cannot_be_tried_is_a_warning(tmp_path: Path) -> None:
    the_one(await examined(tmp_path, secret(), cannot_be_tried), Verdict.WARNING)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Secret\ntype: Opaque\ndata: {}\n", "its type is Opaque"),
        ("kind: Secret\ntype: kubernetes.io/dockerconfigjson\ndata: {}\n", "it has no .dockerconfigjson"),
        ("kind: Secret\ntype: kubernetes.io/dockerconfigjson\ndata: {.dockerconfigjson: '%%'}\n", "is not base64"),
        ("- a\n", "it is no pull secret"),
        (f"{{{PASSWORD}", "is not valid YAML"),
    ],
)
async def test_what_is_no_pull_secret_says_why(text: str, said: str, tmp_path: Path) -> None:
    assert said in the_one(await examined(tmp_path, text)).found

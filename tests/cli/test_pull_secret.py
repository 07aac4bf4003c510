import base64
import json
from pathlib import Path

import yaml

from tests.nodes.roots import program

SERVERS = ("192.0.2.7:5045", "localhost:31113", "container-registry.local:5000")


def options(*servers: str) -> list[str]:
    return [word for server in servers for word in ("--server", server)]


def test_one_secret_serves_all_names_of_the_registry(tmp_path: Path) -> None:
    given = ["pull-secret", "registry", *options(*SERVERS), "--user", "ann", "--namespace", "apps", "--password-stdin"]
    ended = program(*given, cwd=tmp_path, stdin="pass: w\u00f6rd'\n")
    assert ended.status == 0, ended.stderr
    secret = yaml.safe_load(ended.stdout)
    assert (secret["kind"], secret["type"]) == ("Secret", "kubernetes.io/dockerconfigjson")
    assert secret["metadata"] == {"name": "registry", "namespace": "apps"}
    auths = json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]
    assert set(auths) == set(SERVERS)
    for auth in auths.values():
        assert (auth["username"], auth["password"]) == ("ann", "pass: w\u00f6rd'")
        assert base64.b64decode(auth["auth"]).decode() == "ann:pass: w\u00f6rd'"


def test_how_prints_lines_without_reading_a_password(tmp_path: Path) -> None:
    one = program("pull-secret", "registry", *options(SERVERS[0]), "--user", "ann", "--how", cwd=tmp_path)
    assert "kubectl create secret docker-registry registry --docker-server=192.0.2.7:5045" in one.stdout
    assert '"imagePullSecrets": [{"name": "registry"}]' in one.stdout
    more = program("pull-secret", "registry", *options(*SERVERS), "--user", "a b", "--how", cwd=tmp_path)
    assert "--user 'a b' --password-stdin < password | kubectl apply -f -" in more.stdout


def test_what_kubernetes_or_clients_would_refuse_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, server, user, stdin in (
        ("Upper", "r:1", "ann", "x"),
        ("ok", "https://r:1", "ann", "x"),
        ("ok", "r:99999", "ann", "x"),
        ("ok", "r:1", "a:b", "x"),
        ("ok", "r:1", "ann", "\n"),
    ):
        given = ["pull-secret", name, "--server", server, "--user", user, "--password-stdin"]
        ended = program(*given, cwd=tmp_path, stdin=stdin)
        assert ended.status == 2
        assert ended.complaint

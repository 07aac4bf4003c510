import json
from pathlib import Path

from tests.cli.conftest import Edge


def test_config_show_says_where_each_value_came_from(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text("http: {port: 5001}\nstorage: {s3: {bucket: from-file, region: from-file}}\n")
    (tmp_path / "secret").write_text("hush-hush\n")
    ended = edge(
        "config",
        "show",
        "--json",
        EDGE_REGISTRY_CONFIG="c.yml",
        REGISTRY_STORAGE_S3_BUCKET="from-distribution",
        REGISTRY_STORAGE_S3_REGION="from-distribution",
        EDGE_REGISTRY_STORAGE__S3__REGION="from-us",
        EDGE_REGISTRY_STORAGE__S3__SECRET_KEY_FILE="secret",
    )
    assert (ended.status, ended.stderr) == (0, "")
    shown = json.loads(ended.stdout)
    assert shown["http.port"] == {"value": 5001, "origin": "file c.yml"}
    assert shown["storage.s3.bucket"] == {
        "value": "from-distribution",
        "origin": "environment REGISTRY_STORAGE_S3_BUCKET",
    }
    assert shown["storage.s3.region"] == {"value": "from-us", "origin": "environment EDGE_REGISTRY_STORAGE__S3__REGION"}
    assert shown["storage.s3.secret_key"] == {
        "value": "****",
        "origin": "environment EDGE_REGISTRY_STORAGE__S3__SECRET_KEY_FILE",
    }
    assert shown["http.host"] == {"value": "127.0.0.1", "origin": "default"}
    assert "hush" not in ended.stdout


def test_config_show_prints_one_line_a_key(edge: Edge) -> None:
    ended = edge("config", "show", EDGE_REGISTRY_HTTP__PORT="5002")
    assert "http.port = 5002  # environment EDGE_REGISTRY_HTTP__PORT" in ended.stdout.splitlines()
    assert 'storage.driver = "filesystem"  # default' in ended.stdout.splitlines()


def test_config_show_hides_a_password_inside_a_url(edge: Edge) -> None:
    ended = edge("config", "show", EDGE_REGISTRY_STORAGE__S3__ENDPOINT="http://me:hush@minio:9000")
    assert '"http://****@minio:9000"' in ended.stdout
    assert "hush" not in ended.stdout


def test_config_show_fails_where_serve_would(edge: Edge) -> None:
    ended = edge("config", "show", EDGE_REGISTRY_HTTP__HOST="0.0.0.0")
    assert ended.status == 2
    assert "auth.anonymous = null  # default" in ended.stdout
    assert ended.stderr.startswith("edge-registry: http.host 0.0.0.0 is open to the network")


def test_warnings_come_on_stderr_and_leave_the_json_whole(edge: Edge) -> None:
    ended = edge("config", "show", "--json", REGISTRY_NOTIFICATIONS_ENDPOINTS="[]")
    assert json.loads(ended.stdout)
    assert ended.stderr == (
        "edge-registry: warning: REGISTRY_NOTIFICATIONS_ENDPOINTS has no effect here "
        "(environment REGISTRY_NOTIFICATIONS_ENDPOINTS)\n"
    )


UPSTREAM = """
proxy:
  upstreams:
    - name: docker.io
      url: https://hub.example
      tag_ttl: 90m
      credentials: {username: me, password: hush-hush}
"""


def test_config_show_prints_lists_of_mappings_key_by_key_without_their_secrets(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "c.yml").write_text(UPSTREAM)
    lines = edge("config", "show", "--config", "c.yml").stdout.splitlines()
    for line in (
        'proxy.upstreams.0.url = "https://hub.example"  # file c.yml',
        'proxy.upstreams.0.tag_ttl = "1h30m"  # file c.yml',
        'proxy.upstreams.0.credentials.password = "****"  # file c.yml',
        'proxy.upstreams.0.stale.missing_for = "1h"  # default',
        'proxy.spool.max_bytes = "20GiB"  # default',
        "listeners = []  # default",
    ):
        assert line in lines
    assert not any("hush" in line for line in lines)
    shown = json.loads(edge("config", "show", "--json", EDGE_REGISTRY_CONFIG="c.yml").stdout)
    assert shown["proxy.upstreams.0.tag_ttl"] == {"value": 5400, "origin": "file c.yml"}
    assert "proxy.upstreams" not in shown

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app import fields, quantities
from app.configuration import Configuration, load, resolve
from app.errors import StartError
from app.settings import Listener, Settings


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def from_yaml(text: str, **environ: str) -> Configuration:
    Path("c.yml").write_text(text)
    return load(Path("c.yml"), environ)


def refusal(text: str = "", **environ: str) -> str:
    with pytest.raises(StartError) as caught:
        from_yaml(text, **environ)
    return str(caught.value)


def test_each_source_wins_over_the_one_before() -> None:
    text = "http: {port: 1, host: 10.0.0.1, workers: 2, public_url: 'http://file'}"
    environ = {
        "REGISTRY_HTTP_ADDR": "10.0.0.2:2",
        "REGISTRY_HTTP_HOST": "http://distribution",
        "EDGE_REGISTRY_HTTP__PORT": "3",
        "EDGE_REGISTRY_HTTP__HOST": "10.0.0.3",
    }
    Path("c.yml").write_text(text)
    found = load(Path("c.yml"), environ, {"--port": {"http.port": 4}})
    http = found.settings.http
    assert (http.port, http.host, http.public_url, http.workers) == (4, "10.0.0.3", "http://distribution", 2)
    assert found.origins["http.port"] == "option --port"
    assert found.origins["http.host"] == "environment EDGE_REGISTRY_HTTP__HOST"
    assert found.origins["http.public_url"] == "environment REGISTRY_HTTP_HOST"
    assert found.origins["http.workers"] == "file c.yml"
    assert found.origins["http.drain_delay"] == "default"


@pytest.mark.parametrize("name", ["EDGE_REGISTRY_CONFIG", "REGISTRY_CONFIGURATION_PATH"])
def test_the_environment_names_the_file(name: str) -> None:
    Path("named.yml").write_text("http: {port: 7}")
    found = load(None, {name: "named.yml"})
    assert (found.settings.http.port, found.origins["http.port"]) == (7, "file named.yml")


def test_nothing_at_all_is_a_configuration() -> None:
    assert load(None, {}).settings == Settings()
    assert from_yaml("# all commented out\nhttp:\nstorage: {s3: }").settings == Settings()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_secret_file_loses_its_last_newline_only(end: str) -> None:
    Path("secret").write_bytes(f" spaced secret {end}".encode())
    in_yaml = from_yaml("storage: {s3: {secret_key_file: secret}}")
    in_environment = load(None, {"EDGE_REGISTRY_STORAGE__S3__SECRET_KEY_FILE": "secret"})
    for found in (in_yaml, in_environment):
        key = found.settings.storage.s3.secret_key
        assert key is not None
        assert key.get_secret_value() == " spaced secret "
    assert in_yaml.origins["storage.s3.secret_key"] == "file c.yml"
    assert in_environment.origins["storage.s3.secret_key"] == "environment EDGE_REGISTRY_STORAGE__S3__SECRET_KEY_FILE"


def test_a_secret_file_that_is_missing_empty_or_doubled_is_refused() -> None:
    Path("empty").write_text("\n")
    Path("full").write_text("secret")
    name = "EDGE_REGISTRY_STORAGE__S3__SECRET_KEY"
    assert "cannot read gone: No such file" in refusal(**{f"{name}_FILE": "gone"})
    assert "empty is empty" in refusal(**{f"{name}_FILE": "empty"})
    assert "both itself and as a file" in refusal(**{f"{name}_FILE": "full", name: "x"})


def test_a_list_written_as_json_is_refused_rather_than_taken_for_one_word() -> None:
    assert "without brackets" in refusal(EDGE_REGISTRY_REGISTRY__IMMUTABLE_TAGS='["*:v*"]')


def test_lists_are_comma_separated_in_the_environment() -> None:
    found = load(None, {"EDGE_REGISTRY_REGISTRY__IMMUTABLE_TAGS": "a/*:v[0-9]*, b:latest,"})
    assert found.settings.registry.immutable_tags == ["a/*:v[0-9]*", "b:latest"]


def test_an_empty_variable_is_not_set() -> None:
    assert load(None, {"EDGE_REGISTRY_HTTP__PORT": "", "REGISTRY_HTTP_ADDR": ""}).origins["http.port"] == "default"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("htpp: {port: 1}", "unknown key htpp; did you mean http?"),
        ("storage: {s3: {buket: x}}", "unknown key storage.s3.buket; did you mean storage.s3.bucket?"),
        ("port: 1", "unknown key port; did you mean http.port?"),
        ("zzz:", "unknown key zzz; `edge-registry config show` lists all there are"),
        ("http: 5", "http: must be a section of keys"),
        ("- http", "must be a mapping of sections"),
        ("http: {port: 1, port: 2}", "line 1 is not valid YAML: a key comes twice"),
        ("a: b: c", "line 1 is not valid YAML"),
        ("http: {host: 2020-13-45}", "is not valid YAML"),
        ("{[a]: b}", "line 1 is not valid YAML"),
        ("storage: {s3: {secret_key: *hush }}", "line 1 is not valid YAML: found undefined alias ..."),
        ("http: {port: x}", "http.port: must be a whole number, not 'x' (file c.yml)"),
        ("http: {port: 70000}", "http.port: must be at most 65535, not '70000' (file c.yml)"),
        ("http: {drain_delay: soon}", "http.drain_delay: must be a number, not 'soon' (file c.yml)"),
        ("registry: {delete: perhaps}", "registry.delete: must be true or false, not 'perhaps' (file c.yml)"),
        ("registry: {immutable_tags: a}", "registry.immutable_tags: must be a list, not 'a' (file c.yml)"),
        ("auth: {anonymous: all}", "auth.anonymous: must be 'none', 'pull' or 'push', not 'all' (file c.yml)"),
        ("http: {tls: {key: k}}", "http.tls: certificate and key go together: set both or neither (file c.yml)"),
    ],
)
def test_a_mistake_in_the_file_is_one_line_that_names_the_key(text: str, said: str) -> None:
    message = refusal(text)
    assert said in message
    assert "c.yml" in message
    assert "\n" not in message


def test_every_wrong_value_is_named_at_once() -> None:
    assert len(refusal("http: {port: x, workers: 0}\nlog: {level: loud}").splitlines()) == 3


def test_a_variable_that_nobody_reads_is_refused() -> None:
    message = refusal(EDGE_REGISTRY_HTTP_PORT="5000")
    assert message == "unknown variable EDGE_REGISTRY_HTTP_PORT; did you mean EDGE_REGISTRY_HTTP__PORT?"


def test_a_secret_of_the_wrong_type_is_not_echoed() -> None:
    message = refusal("storage: {s3: {secret_key: 12345678}}")
    assert message == "storage.s3.secret_key: must be text; put it in quotes (file c.yml)"
    assert "12345678" not in refusal("storage: {s3: {secret_key: 12345678: x}}")


def test_services_called_registry_are_no_configuration() -> None:
    injected = {
        f"{prefix}{name}": value
        for prefix in ("REGISTRY", "EDGE_REGISTRY", "REGISTRY_CACHE", "EDGE_REGISTRY_UI")
        for name, value in {
            "_PORT": "tcp://10.0.0.1:5000",
            "_SERVICE_HOST": "10.0.0.1",
            "_SERVICE_PORT": "5000",
            "_SERVICE_PORT_HTTP": "5000",
            "_PORT_5000_TCP": "tcp://10.0.0.1:5000",
            "_PORT_5000_TCP_PROTO": "tcp",
            "_PORT_5000_TCP_PORT": "5000",
            "_PORT_5000_TCP_ADDR": "10.0.0.1",
        }.items()
    }
    found = load(None, {**injected, "REGISTRY_AUTH_FILE": "auth.json"})
    assert found.warnings == []
    assert set(found.origins.values()) == {"default"}


def test_distributions_variables_set_ours() -> None:
    found = load(
        None,
        {
            "REGISTRY_HTTP_ADDR": ":5000",
            "REGISTRY_HTTP_TLS_CERTIFICATE": "a.crt",
            "REGISTRY_HTTP_TLS_KEY": "a.key",
            "REGISTRY_HTTP_RELATIVEURLS": "true",
            "REGISTRY_HTTP_DRAINTIMEOUT": "1m30s",
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_PATH": "users",
            "REGISTRY_AUTH_HTPASSWD_REALM": "Realm",
            "REGISTRY_STORAGE": "s3",
            "REGISTRY_STORAGE_S3_REGIONENDPOINT": "minio:9000",
            "REGISTRY_STORAGE_S3_SECURE": "false",
            "REGISTRY_STORAGE_S3_SKIPVERIFY": "true",
            "REGISTRY_STORAGE_S3_FORCEPATHSTYLE": "false",
            "REGISTRY_STORAGE_S3_ACCESSKEY": "key",
            "REGISTRY_STORAGE_DELETE_ENABLED": "false",
            "REGISTRY_STORAGE_REDIRECT_DISABLE": "true",
            "REGISTRY_STORAGE_MAINTENANCE_READONLY": '{"enabled": true}',
            "REGISTRY_CATALOG_MAXENTRIES": "1000",
            "REGISTRY_LOG_LEVEL": "warn",
            "REGISTRY_LOG_FORMATTER": "text",
        },
    )
    settings, s3 = found.settings, found.settings.storage.s3
    assert (settings.http.port, settings.http.host, settings.http.drain_timeout) == (5000, None, 90)
    assert (settings.http.tls.certificate, settings.http.tls.key) == (Path("a.crt"), Path("a.key"))
    assert (settings.auth.htpasswd, settings.auth.realm) == (Path("users"), "Realm")
    assert (settings.storage.driver, s3.endpoint, s3.access_key) == ("s3", "http://minio:9000", "key")
    assert (s3.verify, s3.path_style, s3.redirect) == (False, False, False)
    assert (settings.registry.delete, settings.registry.read_only) == (False, True)
    assert (settings.log.level, settings.log.format) == ("warning", "console")
    assert found.warnings == []


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [(":5000", None, 5000), ("0.0.0.0:80", "0.0.0.0", 80), ("[::1]:443", "::1", 443), ("localhost:1", "localhost", 1)],
)
def test_distributions_addresses(address: str, host: str | None, port: int) -> None:
    http = load(None, {"REGISTRY_HTTP_ADDR": address}).settings.http
    assert (http.host, http.port) == (host, port)


DISTRIBUTION = """
version: 0.1
log: {level: debug, fields: {service: registry}}
storage:
  cache: {blobdescriptor: inmemory}
  filesystem: {rootdirectory: /var/lib/registry}
  delete: {enabled: true}
http:
  addr: 127.0.0.1:5000
  headers: {X-Content-Type-Options: [nosniff]}
health: {storagedriver: {enabled: true, interval: 10s, threshold: 3}}
"""


def test_distributions_own_file_is_taken_as_it_is() -> None:
    found = from_yaml(DISTRIBUTION)
    settings = found.settings
    assert (settings.http.host, settings.http.port, settings.log.level) == ("127.0.0.1", 5000, "debug")
    assert (settings.storage.driver, settings.storage.filesystem.root) == ("filesystem", Path("/var/lib/registry"))
    assert found.origins["storage.driver"] == "file c.yml"
    assert found.warnings == []


def test_its_variables_win_over_its_file() -> None:
    found = from_yaml(DISTRIBUTION, REGISTRY_STORAGE="s3", REGISTRY_STORAGE_S3_BUCKET="b")
    assert (found.settings.storage.driver, found.settings.storage.s3.bucket) == ("s3", "b")


def test_what_has_no_effect_is_named_once_without_its_value() -> None:
    more = """
auth: {token: {realm: 'https://x'}}
notifications: {endpoints: [{name: a}]}
"""
    found = from_yaml(
        DISTRIBUTION + more, REGISTRY_AUTH="token", REGISTRY_HTTP_SECRET="hush", REGISTRY_STORAGE_S3_ROOTDIRECTORY="/x"
    )
    assert found.warnings == [
        "auth.token.realm has no effect here (file c.yml)",
        "notifications.endpoints has no effect here (file c.yml)",
        "REGISTRY_AUTH has no effect here (environment REGISTRY_AUTH)",
        "REGISTRY_HTTP_SECRET is not needed: replicas share their key through the bucket "
        "(environment REGISTRY_HTTP_SECRET)",
        "REGISTRY_STORAGE_S3_ROOTDIRECTORY is not used: keys begin at the root of the bucket; "
        "`adopt --root` takes over what lies below it (environment REGISTRY_STORAGE_S3_ROOTDIRECTORY)",
    ]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"REGISTRY_HTTP_ADDR": "5000"}, "REGISTRY_HTTP_ADDR: must be host:port or :port"),
        ({"REGISTRY_STORAGE": "gcs"}, "the store gcs is not supported"),
        ({"REGISTRY_STORAGE_REDIRECT_DISABLE": "maybe"}, "must be true or false"),
        ({"REGISTRY_LOG_LEVEL": "loud"}, "log.level: must be 'debug', 'info', 'warning' or 'error', not 'loud'"),
    ],
)
def test_distributions_values_are_checked_too(environ: dict[str, str], said: str) -> None:
    assert said in refusal(**environ)


def test_a_file_that_names_two_stores_is_refused() -> None:
    assert "more than one store" in refusal("version: 0.1\nstorage: {s3: {bucket: b}, filesystem: {rootdirectory: /x}}")


@pytest.mark.parametrize(
    ("http", "auth", "host", "anonymous"),
    [
        ({}, {}, "127.0.0.1", "push"),
        ({}, {"htpasswd": "users"}, "0.0.0.0", "none"),
        ({}, {"anonymous": "pull"}, "127.0.0.1", "pull"),
        ({}, {"htpasswd": "users", "anonymous": "pull"}, "0.0.0.0", "pull"),
        ({"host": "::1"}, {}, "::1", "push"),
        ({"host": "127.9.9.9"}, {}, "127.9.9.9", "push"),
        ({"host": "localhost"}, {}, "localhost", "push"),
        ({"host": "0.0.0.0"}, {"anonymous": "push"}, "0.0.0.0", "push"),
        ({"host": "10.0.0.1"}, {"htpasswd": "users"}, "10.0.0.1", "none"),
    ],
)
def test_without_users_the_registry_stays_on_this_machine(
    http: dict[str, Any], auth: dict[str, Any], host: str, anonymous: str
) -> None:
    before = Settings.model_validate({"http": http, "auth": auth})
    after = resolve(before)
    assert (after.http.host, after.auth.anonymous) == (host, anonymous)
    assert before == Settings.model_validate({"http": http, "auth": auth})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "registry.lan"])
def test_an_open_address_without_users_must_be_asked_for(host: str) -> None:
    with pytest.raises(StartError, match=r"user add.*auth\.anonymous: push.*--insecure-anonymous"):
        resolve(Settings.model_validate({"http": {"host": host}}))


HUB = "{name: docker.io, aliases: [index.docker.io], url: 'https://hub.example'"


def test_a_list_of_mappings_is_the_same_from_the_file_a_variable_and_a_file_of_its_own() -> None:
    items = f"[{HUB}, tag_ttl: 5m, bandwidth: 2MiB, credentials: {{username: me, password: hush}}}}]"
    Path("upstreams.yml").write_text(items)
    name = "EDGE_REGISTRY_PROXY__UPSTREAMS"
    found = [
        from_yaml(f"proxy: {{upstreams: {items}}}"),
        from_yaml("proxy: {upstreams_file: upstreams.yml}"),
        load(None, {name: items}),
        load(None, {f"{name}_FILE": "upstreams.yml"}),
    ]
    for one in found:
        (upstream,) = one.settings.proxy.upstreams
        assert (upstream.name, upstream.tag_ttl, upstream.bandwidth) == ("docker.io", 300, 2 << 20)
        assert upstream.credentials is not None
        assert upstream.credentials.password == SecretStr("hush")
    origins = [one.origins["proxy.upstreams"] for one in found]
    assert origins == ["file c.yml", "file c.yml", f"environment {name}", f"environment {name}_FILE"]


def test_json_in_a_variable_is_a_list_of_mappings() -> None:
    found = load(None, {"EDGE_REGISTRY_LISTENERS": '[{"port": 32000, "read_only": true}, {"port": 32001}]'})
    assert [(one.port, one.read_only) for one in found.settings.listeners] == [(32000, True), (32001, False)]


def test_what_is_left_empty_in_a_list_is_not_set_and_on_is_a_key() -> None:
    found = from_yaml(f"proxy: {{upstreams: [{HUB}, tls: , credentials: , stale: {{on: [network]}}}}]}}")
    (upstream,) = found.settings.proxy.upstreams
    assert (upstream.stale.on, upstream.credentials, upstream.tls.verify) == (["network"], None, True)


def test_paths_inside_a_list_stay_as_they_are_written() -> None:
    found = from_yaml(f"proxy: {{upstreams: [{HUB}, tls: {{ca: certs/ca.pem}}, credentials: {{google: {{}}}}}}]}}")
    assert found.settings.proxy.upstreams[0].tls.ca == Path("certs/ca.pem")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"[{HUB}}}, {{name: x, url: ftp://x}}]", "proxy.upstreams.1.url: must be a URL with http or https, not 'ftp:"),
        (f"[{HUB}, tagttl: 5m}}]", "unknown key proxy.upstreams.0.tagttl; did you mean proxy.upstreams.0.tag_ttl?"),
        (
            f"[{HUB}, credentials: {{pasword: hush, helper: x}}}}]",
            "unknown key proxy.upstreams.0.credentials.pasword; did you mean proxy.upstreams.0.credentials.password?",
        ),
        (
            f"[{HUB}, tag_ttl: soon}}]",
            "proxy.upstreams.0.tag_ttl: must be a duration such as 90s, 5m or 12h, not 'soon'",
        ),
        (f"[{HUB}, tag_ttl: [5]}}]", "proxy.upstreams.0.tag_ttl: must be a duration such as 90s, 5m or 12h"),
        (
            f"[{HUB}, bandwidth: lots}}]",
            "proxy.upstreams.0.bandwidth: must be a size such as 500MB or 20GiB, not 'lots'",
        ),
        (f"[{HUB}, max_bytes: 1KB}}]", "proxy.upstreams.0.max_bytes: must be at least 1MiB, not '1KB'"),
        (f"[{HUB}, connect_timeout: 0s}}]", "proxy.upstreams.0.connect_timeout: must be more than 0s, not '0s'"),
        (f"[{HUB}, stale: {{on: [never]}}}}]", "proxy.upstreams.0.stale.on.0: must be 'network', "),
        ("[{name: docker.io}]", "proxy.upstreams.0.url: must be set"),
        ("[hush]", "proxy.upstreams.0: must be a mapping of keys (file c.yml)"),
        ("hush", "proxy.upstreams: must be a list (file c.yml)"),
        (f"[{HUB}, credentials: hush}}]", "proxy.upstreams.0.credentials: must be a mapping of keys (file c.yml)"),
        (
            f"[{HUB}, credentials: {{username: me}}}}]",
            "proxy.upstreams.0.credentials: username and a password go toget",
        ),
        (f"[{HUB}, fallbacks: [quay.io]}}]", "proxy: there is no upstream called quay.io"),
        ("[{name: x, url: 'https://me:hush@x'}]", "must hold no user, password, query or fragment"),
        ("[{name: x, url: 'https://x/?token=hush'}]", "must hold no user, password, query or fragment"),
        (
            f"[{HUB}, credentials: {{username: me, password: [hush]}}}}]",
            "credentials.password: must be text; put it in",
        ),
        (f"[&a {HUB}, fallbacks: *a }}]", "proxy.upstreams: refers to itself"),
    ],
)
def test_a_mistake_in_a_list_names_its_place_and_tells_no_secret(text: str, said: str) -> None:
    message = refusal(f"proxy: {{upstreams: {text}}}")
    assert said in message
    assert message.endswith("(file c.yml)")
    assert "hush" not in message
    assert "\n" not in message


def test_a_list_in_a_variable_or_a_file_of_its_own_that_cannot_be_read_is_one_line() -> None:
    name = "EDGE_REGISTRY_PROXY__UPSTREAMS"
    Path("broken.yml").write_text("[{name: *hush }]")
    assert refusal(**{name: "[{a: b: hush}]"}).startswith(f"{name}, line 1 is not valid YAML")
    assert "hush" not in refusal(**{name: "[{a: *hush }]"})
    assert "broken.yml, line 1 is not valid YAML" in refusal(**{f"{name}_FILE": "broken.yml"})
    assert "hush" not in refusal(**{f"{name}_FILE": "broken.yml"})
    assert "proxy.upstreams: cannot read the configuration gone" in refusal(**{f"{name}_FILE": "gone"})
    assert f"unknown variable {name}__0__URL; did you mean {name}?" in refusal(**{f"{name}__0__URL": "x"})


def listening(**sections: Any) -> list[Listener]:
    return resolve(Settings.model_validate(sections)).listening()


def test_without_listeners_there_is_one_made_of_http() -> None:
    (only,) = listening(
        http={"port": 0, "tls": {"certificate": "c", "key": "k"}},
        registry={"read_only": True},
        proxy={"upstreams": [{"name": "quay.io", "url": "https://quay.io"}], "default_upstream": "quay.io"},
    )
    assert only == Listener("http", "127.0.0.1", 0, True, True, "push", False, "quay.io")


def test_listeners_fill_what_is_unset_from_the_rest_of_the_configuration() -> None:
    upstreams = [{"name": "quay.io", "url": "https://quay.io"}, {"name": "b.io", "aliases": ["b"], "url": "http://b"}]
    first, second, third = listening(
        http={"host": "10.0.0.1", "tls": {"certificate": "c", "key": "k"}},
        auth={"htpasswd": "users"},
        proxy={"upstreams": upstreams, "default_upstream": "quay.io"},
        listeners=[
            {"port": 1, "tls": False, "read_only": True, "anonymous": "pull", "host": "0.0.0.0"},
            {"port": 2, "default_upstream": ""},
            {"port": 2, "default_upstream": "B", "host": "10.0.0.2"},
        ],
    )
    assert first == Listener("listeners.0", "0.0.0.0", 1, False, True, "pull", True, "quay.io")
    assert second == Listener("listeners.1", "10.0.0.1", 2, True, False, "none", False, None)
    assert third == Listener("listeners.2", "10.0.0.2", 2, True, False, "none", False, "b")


def test_a_listener_is_open_without_users_only_where_it_says_so() -> None:
    (said,) = listening(listeners=[{"port": 1, "host": "0.0.0.0", "anonymous": "pull"}])
    assert (said.anonymous, said.open_door) == ("pull", True)
    assert [one.host for one in listening(listeners=[{"port": 1, "anonymous": "pull"}, {"port": 2}])] == [
        "127.0.0.1"
    ] * 2
    with pytest.raises(StartError) as caught:
        listening(listeners=[{"port": 1, "host": "0.0.0.0", "anonymous": "pull"}, {"port": 2, "host": "10.0.0.1"}])
    assert str(caught.value).startswith("listeners.1.host 10.0.0.1 is open to the network and there are no users")
    assert "listeners.1.anonymous" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("listeners", "said"),
    [
        ([{"port": 1}, {"port": 1, "host": "127.0.0.1"}], "listeners.1 and listeners.0 are both at 127.0.0.1:1"),
        ([{"port": 1, "default_upstream": "quay.oi"}], "no upstream called quay.oi; did you mean quay.io?"),
        ([{"port": 1, "tls": True}], "listeners.0.tls: there is no certificate"),
    ],
)
def test_listeners_at_odds_with_the_rest_are_refused(listeners: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(StartError) as caught:
        listening(listeners=listeners, proxy={"upstreams": [{"name": "quay.io", "url": "https://quay.io"}]})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{host: 0.0.0.0}]", "listeners.0.port: must be set (file c.yml)"),
        ("[{port: 0}]", "listeners.0.port: must be at least 1, not '0' (file c.yml)"),
        ("[{port: 1, readonly: true}]", "unknown key listeners.0.readonly; did you mean listeners.0.read_only?"),
        ("[{port: 1, anonymous: all}]", "listeners.0.anonymous: must be 'none', 'pull' or 'push', not 'all'"),
    ],
)
def test_a_mistake_in_a_listener_names_it(text: str, said: str) -> None:
    assert said in refusal(f"listeners: {text}")


def test_a_port_beside_listeners_has_no_effect_and_that_is_said() -> None:
    found = from_yaml("http: {port: 7}\nlisteners: [{port: 8}]")
    assert found.warnings == ["http.port has no effect: listeners say where the server listens (file c.yml)"]


PROXY = {
    "REGISTRY_PROXY_REMOTEURL": "https://registry-1.docker.io",
    "REGISTRY_PROXY_USERNAME": "me",
    "REGISTRY_PROXY_PASSWORD": "hush",
}
PUSHES = (
    "unlike Distribution as a proxy, this registry also takes pushes, beside what it caches: registry.read_only or the "
    "read_only of a listener refuses them (environment REGISTRY_PROXY_REMOTEURL)"
)


def test_distributions_proxy_is_one_upstream_for_everything_that_is_not_here() -> None:
    found = load(None, PROXY | {"REGISTRY_PROXY_TTL": "0"})
    proxy = found.settings.proxy
    (upstream,) = proxy.upstreams
    assert (upstream.name, upstream.url, proxy.default_upstream) == (
        "docker.io",
        PROXY["REGISTRY_PROXY_REMOTEURL"],
        "docker.io",
    )
    assert upstream.aliases == ["index.docker.io", "registry-1.docker.io"]
    assert upstream.credentials is not None
    assert upstream.credentials.username == "me"
    assert upstream.credentials.password == SecretStr("hush")
    assert found.origins["proxy.upstreams"] == "environment REGISTRY_PROXY_REMOTEURL"
    assert found.warnings == [PUSHES]


def test_distributions_proxy_with_a_helper_and_a_secret_from_elsewhere() -> None:
    Path("c.yml").write_text(
        "version: 0.1\nproxy: {remoteurl: 'https://gcr.example:8443/p', ttl: 168h, "
        "exec: {command: /bin/docker-credential-gcr, lifetime: 1h30m}}"
    )
    found = load(Path("c.yml"), {})
    (upstream,) = found.settings.proxy.upstreams
    assert (upstream.name, upstream.url) == ("gcr.example:8443", "https://gcr.example:8443/p")
    assert upstream.credentials is not None
    assert (upstream.credentials.helper, upstream.credentials.helper_lifetime) == ("gcr", 5400)
    assert found.warnings[0].startswith("proxy.ttl has no effect here")
    Path("c.yml").write_text("version: 0.1\nproxy: {remoteurl: 'http://127.0.0.1:5001', username: me, password: old}")
    found = load(Path("c.yml"), {"REGISTRY_PROXY_PASSWORD": "new"})
    credentials = found.settings.proxy.upstreams[0].credentials
    assert credentials is not None
    assert (credentials.username, credentials.password) == ("me", SecretStr("new"))


def test_pushes_beside_distributions_proxy_are_warned_of_only_where_they_are_taken() -> None:
    assert load(None, PROXY | {"REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true"}).warnings == []
    assert load(None, PROXY | {"EDGE_REGISTRY_REGISTRY__READ_ONLY": "true"}).warnings == []
    assert load(None, PROXY | {"EDGE_REGISTRY_LISTENERS": "[{port: 1, read_only: true}, {port: 2}]"}).warnings == []
    assert load(None, {"REGISTRY_PROXY_USERNAME": "me"}).warnings == [
        "REGISTRY_PROXY_USERNAME has no effect without proxy.remoteurl (environment REGISTRY_PROXY_USERNAME)"
    ]


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"REGISTRY_PROXY_REMOTEURL": "docker.io"}, "REGISTRY_PROXY_REMOTEURL: must be a URL with http or https"),
        ({"REGISTRY_PROXY_REMOTEURL": "https://x:hush"}, "REGISTRY_PROXY_REMOTEURL: must be a URL with http or https"),
        ({"REGISTRY_PROXY_REMOTEURL": "https://me:hush@x"}, "proxy.upstreams.0.url: must hold no user, password"),
        (
            {**PROXY, "REGISTRY_PROXY_USERNAME": ""},
            "proxy.upstreams.0.credentials: username and a password go together",
        ),
        ({**PROXY, "REGISTRY_PROXY_EXEC_COMMAND": "cat hush"}, "must be a program called docker-credential-..."),
    ],
)
def test_a_mistake_in_distributions_proxy_is_one_line_without_secrets(environ: dict[str, str], said: str) -> None:
    message = refusal(**environ)
    assert said in message
    assert "hush" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("proxy.negative_ttl", 0, "0s"),
        ("proxy.negative_ttl", 0.25, "0.25s"),
        ("proxy.negative_ttl", 90061.5, "1d1h1m1.5s"),
        ("proxy.spool.max_bytes", 20 << 30, "20GiB"),
        ("proxy.spool.max_bytes", 1536 << 20, "1536MiB"),
        ("proxy.spool.max_bytes", 1_500_001, "1500001B"),
    ],
)
def test_quantities_are_shown_as_they_may_be_written(key: str, value: float, text: str) -> None:
    assert fields.readable(value, fields.roots(Settings)[key]) == text
    assert (quantities.size if text.endswith("B") else quantities.seconds)(text) == value


def test_a_port_is_no_quantity() -> None:
    assert fields.readable(5045, fields.roots(Settings)["http.port"]) == 5045

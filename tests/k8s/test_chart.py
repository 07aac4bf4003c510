"""The chart: what it installs is sound, hardened, and what the server itself accepts; what cannot work is refused."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from app import configuration
from app.auth.settings import AuthSettings, RuleSettings
from app.cli import node_setup
from app.nodes.settings import NodeSettings, load as load_nodes
from app.proxy.credentials.google import open_google
from app.proxy.settings import CredentialsSettings, ProxySettings, UpstreamSettings
from app.settings import ListenerSettings, Settings
from app.telemetry.metrics import Metrics
from app.telemetry.upkeep import UpkeepMetrics
from app.telemetry.upstreams import UpstreamMetrics
from tests.k8s.rendering import CHART, SCENARIOS, Chart, Rendered, need_helm
from tests.services.clients import CHECKOUT
from tests.services.registry import RegistryServer, filesystem_store

pytestmark = pytest.mark.clients

USERS = {"htpasswd": {"existingSecret": "users"}}
BUCKET = {**USERS, "s3": {"endpoint": "http://minio.store.svc:9000", "existingSecret": "keys"}}
FOLDER = {**USERS, "persistence": {"hostPath": "/srv/registry"}}
TLS = {"tls": {"existingSecret": "certificate"}}
HUB = {"name": "docker.io", "url": "https://registry-1.docker.io"}
AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/c"
GOOGLE = {"google": {"workloadIdentity": {"enabled": True, "audience": AUDIENCE, "serviceAccountEmail": "a@b.example"}}}
NODES = {"nodeSetup": {"enabled": True, "config": {"hosts": ["localhost:31113"]}}}
CERT_MANAGER = {"tls": {"certManager": {"enabled": True, "issuerRef": {"name": "ca"}, "dnsNames": ["r.example.org"]}}}
EVERYTHING: dict[str, Any] = {
    **BUCKET,
    **CERT_MANAGER,
    **GOOGLE,
    **NODES,
    "replicaCount": 3,
    "hostPort": 5045,
    "proxy": {"default_upstream": "docker.io", "upstreams": [HUB]},
    "upstreamSecrets": ["hub"],
    "ingress": {"enabled": True, "hosts": ["r.example.org"]},
    "httproute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["r.example.org"]},
    "networkPolicy": {"enabled": True, "from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "prometheusRule": {"enabled": True},
}


@pytest.fixture(scope="module")
def chart(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chart:
    return Chart(need_helm(request, tmp_path_factory.mktemp("helm")))


@pytest.fixture(scope="module", params=[*SCENARIOS, "bucket", "folder", "everything"])
def rendered(request: pytest.FixtureRequest, chart: Chart) -> Rendered:
    """Each scenario, and the chart with few values and with nearly all."""
    values = {"bucket": BUCKET, "folder": FOLDER, "everything": EVERYTHING}
    return chart.render(values.get(request.param) or SCENARIOS[request.param])


def containers(rendered: Rendered) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    for name, pod in rendered.pods():
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            yield f"{name}/{container['name']}", pod, container


# What is installed


def test_the_chart_has_the_version_of_the_project() -> None:
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
    found = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert found["appVersion"] == version
    assert found["version"] == version


@pytest.mark.parametrize("values", [*SCENARIOS.values(), None], ids=[*SCENARIOS, "defaults"])
def test_helm_finds_nothing_to_complain_about(chart: Chart, values: Path | None) -> None:
    given = ["--values", str(values)] if values else ["--set", "auth.anonymous=pull"]
    assert "0 chart(s) failed" in chart.helm.run("lint", "--strict", str(CHART), *given)


def test_the_server_accepts_its_configuration(
    rendered: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file, secret = tmp_path / "registry.yaml", tmp_path / "secret"
    file.write_text(rendered.settings_text)
    secret.write_text("a secret")
    environ = {name: value or "10.0.0.7" for name, value in rendered.environment.items()}
    environ |= {name: str(secret) for name in environ if name.endswith("_KEY_FILE")}
    environ["EDGE_REGISTRY_CONFIG"] = str(file)
    found = configuration.load(None, {name: value.replace("$(POD_IP)", "10.0.0.7") for name, value in environ.items()})
    settings = configuration.resolve(found.settings)
    assert found.warnings == []
    listening = [(one.port, "https" if one.tls else "http", one.host) for one in settings.listening()]
    ports = [(one["containerPort"], one["name"].partition("-")[0]) for one in rendered.container["ports"]]
    assert listening == [(port, scheme, "0.0.0.0") for port, scheme in ports]
    if settings.storage.driver == "filesystem":
        assert str(settings.storage.filesystem.root) in [one["mountPath"] for one in rendered.container["volumeMounts"]]


def test_every_container_is_hardened(rendered: Rendered) -> None:
    for name, pod, container in containers(rendered):
        context = {**pod["securityContext"], **container["securityContext"]}
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert "privileged" not in context, name
        assert container["resources"]["limits"]["memory"], name
        assert pod["automountServiceAccountToken"] is False, name
        assert not {"hostPID", "hostNetwork", "hostIPC"} & set(pod), name
        # Files of nodes belong to root; nothing else is root.
        if not name.startswith("edge-registry-nodes/"):
            assert (context["runAsNonRoot"], context["runAsUser"]) == (True, 65532), name


def test_no_secret_is_made_or_written_down(rendered: Rendered) -> None:
    assert "Secret" not in rendered.kinds()
    for name, _, container in containers(rendered):
        for one in container.get("env", []):
            holds = re.search("PASSWORD|SECRET|ACCESS_KEY|TOKEN", one["name"])
            assert not holds or one["name"].endswith("_FILE"), f"{name}: {one['name']}"


def test_every_mount_has_its_volume_and_every_volume_is_mounted(rendered: Rendered) -> None:
    for name, pod in rendered.pods():
        every = [*pod.get("initContainers", []), *pod["containers"]]
        mounted = {mount["name"] for container in every for mount in container.get("volumeMounts", [])}
        volumes = [volume["name"] for volume in pod.get("volumes", [])]
        assert sorted(volumes) == sorted(mounted), name
        for container in every:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert len(set(paths)) == len(paths), name


def test_every_file_that_the_configuration_names_is_mounted(rendered: Rendered) -> None:
    mounts = [mount["mountPath"] for mount in rendered.container["volumeMounts"]]
    named = re.findall(r": (/(?:etc|var)/\S+)", rendered.settings_text)
    named += [value for value in rendered.environment.values() if value and value.startswith("/")]
    assert len(named) >= 2
    assert [path for path in named if not any(path == one or path.startswith(f"{one}/") for one in mounts)] == []


def test_probes_and_services_reach_ports_that_are_there(rendered: Rendered) -> None:
    ports = {one["name"]: one["containerPort"] for one in rendered.container["ports"]}
    for probe, path in (("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
        asked = rendered.container[probe]["httpGet"]
        assert asked["path"] == path
        assert asked["port"] in ports
        assert asked["scheme"].lower() == asked["port"].partition("-")[0]
    service = rendered.one("Service")["spec"]
    assert [one["targetPort"] for one in service["ports"]] == list(ports)
    assert service["selector"].items() <= rendered.deployment["template"]["metadata"]["labels"].items()
    assert service["selector"] == rendered.deployment["selector"]["matchLabels"]


def test_the_pod_outlives_the_drain(rendered: Rendered) -> None:
    http = rendered.settings["http"]
    assert http["drain_delay"] > 0
    assert rendered.pod["terminationGracePeriodSeconds"] > http["drain_delay"] + http["drain_timeout"]


def test_rendering_twice_gives_the_same(chart: Chart) -> None:
    assert chart.text(EVERYTHING) == chart.text(EVERYTHING)


def test_what_is_optional_is_off(chart: Chart) -> None:
    assert chart.render(BUCKET).kinds() == ["ConfigMap", "Deployment", "Pod", "Service", "ServiceAccount"]
    assert chart.render(USERS).kinds() == [
        "ConfigMap",
        "Deployment",
        "PersistentVolumeClaim",
        "Pod",
        "Service",
        "ServiceAccount",
    ]


# Values


def described(schema: dict[str, Any], values: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Where the schema and the values do not have the same keys."""
    if not isinstance(values, dict) or schema.get("additionalProperties") is not False:
        return
    known = set(schema["properties"])
    yield from ((f"{path}{name}", "not in the schema") for name in values.keys() - known)
    for name in known & values.keys():
        yield from described(schema["properties"][name], values[name], f"{path}{name}.")
    # What the server itself reads is described by the server, not by default values.
    if path.split(".")[0] not in ("auth", "proxy", "config", "") and path != "nodeSetup.config.":
        yield from ((f"{path}{name}", "not in values.yaml") for name in known - values.keys())


def test_the_schema_has_exactly_the_values_that_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert schema["additionalProperties"] is False
    assert schema["properties"].keys() - values.keys() == {"global"}
    assert list(described(schema, values)) == []


def test_the_schema_knows_the_settings_of_the_server_and_leaves_out_its_passwords() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    listener = set(schema["listeners"]["items"]["properties"])
    assert listener - {"servicePort", "nodePort", "hostPort"} == set(ListenerSettings.model_fields)
    assert set(schema["proxy"]["properties"]) == set(ProxySettings.model_fields)
    upstream = schema["proxy"]["properties"]["upstreams"]["items"]["properties"]
    assert set(upstream) == set(UpstreamSettings.model_fields)
    assert set(upstream["credentials"]["properties"]) == set(CredentialsSettings.model_fields) - {"password"}
    for part in ("tls", "stale", "prefetch"):
        model = UpstreamSettings.model_fields[part].annotation
        assert model is not None
        assert set(upstream[part]["properties"]) == set(model.model_fields)  # type: ignore[attr-defined]
    assert set(schema["auth"]["properties"]) == set(AuthSettings.model_fields) - {"htpasswd"}
    assert set(schema["auth"]["properties"]["rules"]["items"]["properties"]) == set(RuleSettings.model_fields)
    assert set(schema["config"]["properties"]) == set(Settings.model_fields)
    nodes = schema["nodeSetup"]["properties"]["config"]["properties"]
    assert set(nodes) == set(NodeSettings.model_fields) - {"ca", "ca_file", "state"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({}, "there are no users", id="nobody said who may come in"),
        pytest.param(
            {"listeners": [{"port": 5000, "anonymous": "pull"}, {"port": 5001}]}, "there are no users", id="l"
        ),
        pytest.param({**FOLDER, "replicaCount": 2}, "several replicas need a bucket", id="two on a folder"),
        pytest.param({**USERS, "replicaCount": 2}, "several replicas need a bucket", id="two on a claim"),
        pytest.param({**USERS, "storage": "memory", "replicaCount": 2}, "several replicas need a bucket", id="memory"),
        pytest.param({**BUCKET, "s3": {"secretKey": "x"}}, "'secretKey' not allowed", id="key of the store"),
        pytest.param({**BUCKET, "secrets": {"htpasswd": "a:b"}}, "'secrets' not allowed", id="users in values"),
        pytest.param({**USERS, "htpasswd": {"users": "a:b"}}, "'users' not allowed", id="users in values, again"),
        pytest.param(
            {**BUCKET, "config": {"storage": {"s3": {"secret_key": "x"}}}}, "s3.existingSecret", id="key in config"
        ),
        pytest.param(
            {**USERS, "proxy": {"upstreams": [{**HUB, "credentials": {"username": "u", "password": "x"}}]}},
            "'password' not allowed",
            id="password of an upstream",
        ),
        pytest.param(
            {
                **USERS,
                "proxy": {"upstreams": [HUB]},
                "config": {"proxy": {"upstreams": [{**HUB, "credentials": {"username": "u", "password": "x"}}]}},
            },
            "password_file",
            id="password of an upstream in config",
        ),
        pytest.param(
            {**USERS, "extraEnv": [{"name": "EDGE_REGISTRY_STORAGE__S3__SECRET_KEY", "value": "x"}]},
            "valueFrom.secretKeyRef",
            id="secret in the environment",
        ),
        pytest.param({**USERS, "proxy": {"upstream": []}}, "'upstream' not allowed", id="unknown key of the server"),
        pytest.param({**USERS, "replicas": 2}, "'replicas' not allowed", id="unknown value"),
        pytest.param({**USERS, "replicaCount": "2"}, "replicaCount", id="text for a number"),
        pytest.param({**USERS, "terminationGracePeriodSeconds": 70}, "pulls would be cut off", id="short grace"),
        pytest.param({**USERS, "config": {"http": {"port": 443}}}, "no right to ports below 1024", id="low port"),
        pytest.param(
            {**USERS, "service": {"nodePort": 31113}}, "NodePort or LoadBalancer", id="node port of no service"
        ),
        pytest.param(
            {**USERS, "hostPort": 1234, "listeners": [{"port": 5000}]}, "listeners[].hostPort", id="whose host port"
        ),
        pytest.param({**USERS, "config": {"listeners": [{"port": 1}]}}, "set listeners", id="hidden listeners"),
        pytest.param({**USERS, "config": {"proxy": {"upstreams": [HUB]}}}, "set proxy", id="hidden proxy"),
        pytest.param({**USERS, "config": {"storage": {"driver": "s3"}}}, "set storage", id="hidden storage"),
        pytest.param(
            {**USERS, "config": {"storage": {"filesystem": {"root": "/x"}}}}, "persistence", id="folder without volume"
        ),
        pytest.param({**USERS, "config": {"htpp": {}}}, "'htpp' not allowed", id="unknown section"),
        pytest.param(
            {**FOLDER, "persistence": {"hostPath": "/x", "existingClaim": "y"}}, "set one of them", id="two places"
        ),
        pytest.param({**USERS, "google": {"workloadIdentity": {"enabled": True}}}, "audience", id="no audience"),
        pytest.param({**USERS, "tls": {"certManager": {"enabled": True}}}, "issuerRef.name", id="no issuer"),
        pytest.param({**BUCKET, **CERT_MANAGER, "tls": {**CERT_MANAGER["tls"], **TLS["tls"]}}, "set one", id="two TLS"),
        pytest.param({**USERS, "httproute": {"enabled": True}}, "parentRefs", id="route to nowhere"),
        pytest.param(
            {**BUCKET, "replicaCount": 2, "podDisruptionBudget": {"minAvailable": 1}}, "exactly one", id="two budgets"
        ),
        pytest.param(
            {**USERS, "nodeSetup": {**NODES["nodeSetup"], "ca": {"certificate": "-----BEGIN PRIVATE KEY-----"}}},
            "private key",
            id="key for nodes",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(chart: Chart, values: dict[str, Any], message: str) -> None:
    assert message in chart.refusal(values)


def test_values_go_deep_into_the_configuration(chart: Chart) -> None:
    rendered = chart.render(
        BUCKET,
        {"config": {"http": {"drain_timeout": 300, "port": 8080}, "storage": {"s3": {"connections": 8}}}},
        {"config": {"registry": {"manifest_cache_bytes": 21474836480}, "log": {"level": "debug"}}},
    )
    settings = rendered.settings
    assert settings["http"] == {"host": "0.0.0.0", "port": 8080, "drain_delay": 10, "drain_timeout": 300}
    assert settings["storage"]["s3"]["connections"] == 8
    assert settings["storage"]["s3"]["bucket"] == "registry-edge"
    assert settings["registry"] == {"manifest_cache_bytes": 21474836480}
    assert rendered.container["ports"] == [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    assert rendered.pod["terminationGracePeriodSeconds"] == 320


def test_a_changed_configuration_restarts_the_pods_and_a_changed_number_does_not(chart: Chart) -> None:
    def checksum(*values: dict[str, Any]) -> str:
        found: str = chart.render(*values).deployment["template"]["metadata"]["annotations"]["checksum/config"]
        return found

    assert checksum(BUCKET) == checksum(BUCKET, {"replicaCount": 3, "service": {"type": "LoadBalancer"}})
    assert checksum(BUCKET) != checksum(BUCKET, {"config": {"log": {"level": "debug"}}})
    other = {"google": {"workloadIdentity": {"serviceAccountEmail": "c@d.example"}}}
    assert checksum(BUCKET, GOOGLE) != checksum(BUCKET, GOOGLE, other)


# Store, replicas, ports


def test_a_bucket_takes_any_number_of_replicas_kept_apart_and_replaced_one_by_one(chart: Chart) -> None:
    one, three = chart.render(BUCKET), chart.render(BUCKET, {"replicaCount": 3})
    assert "PodDisruptionBudget" not in one.kinds()
    assert "topologySpreadConstraints" not in one.pod
    assert three.one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    (spread,) = three.pod["topologySpreadConstraints"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["labelSelector"]["matchLabels"] == three.deployment["selector"]["matchLabels"]
    assert three.deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert "affinity" not in three.pod
    assert three.environment["EDGE_REGISTRY_STORAGE__S3__SECRET_KEY_FILE"] == "/etc/edge-registry/s3/secret-key"
    least = chart.render(
        BUCKET, {"replicaCount": 3, "podDisruptionBudget": {"minAvailable": 2, "maxUnavailable": None}}
    )
    assert least.one("PodDisruptionBudget")["spec"]["minAvailable"] == 2


def test_replicas_at_ports_of_nodes_share_no_node_and_leave_the_port_before_the_next_takes_it(chart: Chart) -> None:
    wanted = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
    rendered = chart.render(BUCKET, {"replicaCount": 2, "hostPort": 5045, "affinity": wanted})
    (apart,) = rendered.pod["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert apart["labelSelector"]["matchLabels"] == rendered.deployment["selector"]["matchLabels"]
    assert rendered.pod["affinity"]["nodeAffinity"] == wanted["nodeAffinity"]
    assert rendered.deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert rendered.container["ports"][0]["hostPort"] == 5045


def test_a_folder_has_one_replica_at_a_time(chart: Chart) -> None:
    rendered = chart.render(FOLDER)
    assert rendered.deployment["strategy"] == {"type": "Recreate"}
    volumes = {volume["name"]: volume for volume in rendered.pod["volumes"]}
    assert volumes["data"]["hostPath"] == {"path": "/srv/registry", "type": "Directory"}
    assert "initContainers" not in rendered.pod


def test_a_folder_is_prepared_by_root_with_one_capability_where_that_is_wanted(chart: Chart) -> None:
    rendered = chart.render({**FOLDER, "persistence": {"hostPath": "/srv/registry", "prepareHostPath": True}})
    (init,) = rendered.pod["initContainers"]
    assert init["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert init["securityContext"]["readOnlyRootFilesystem"] is True
    assert [mount["name"] for mount in init["volumeMounts"]] == ["data"]


def test_claims_are_made_kept_or_taken_as_they_are(chart: Chart) -> None:
    made = chart.render(USERS, {"persistence": {"size": "5Gi", "storageClass": "-"}})
    claim = made.one("PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert claim["spec"]["storageClassName"] == ""
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"
    taken = chart.render(USERS, {"persistence": {"existingClaim": "mine"}})
    assert "PersistentVolumeClaim" not in taken.kinds()
    assert {"claimName": "mine"} in [volume.get("persistentVolumeClaim") for volume in taken.pod["volumes"]]
    none = chart.render(USERS, {"persistence": {"enabled": False}})
    assert {"name": "data", "emptyDir": {}} in none.pod["volumes"]


def test_listeners_become_ports_of_the_container_the_service_and_the_nodes(chart: Chart) -> None:
    listeners = [
        {"port": 32000, "nodePort": 32000, "read_only": True, "anonymous": "pull", "tls": False},
        {"port": 32001, "servicePort": 443, "hostPort": 8443},
    ]
    rendered = chart.render(BUCKET, TLS, {"listeners": listeners, "service": {"type": "NodePort"}})
    assert rendered.settings["listeners"] == [
        {"port": 32000, "read_only": True, "anonymous": "pull", "tls": False},
        {"port": 32001},
    ]
    assert "port" not in rendered.settings["http"]
    assert rendered.one("Service")["spec"]["ports"] == [
        {"name": "http-32000", "port": 32000, "targetPort": "http-32000", "protocol": "TCP", "nodePort": 32000},
        {"name": "https-32001", "port": 443, "targetPort": "https-32001", "protocol": "TCP"},
    ]
    assert rendered.container["ports"][1] == {
        "name": "https-32001",
        "containerPort": 32001,
        "hostPort": 8443,
        "protocol": "TCP",
    }


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({}, "http://$(POD_IP):5045"),
        (TLS, "https://$(POD_IP):5045"),
        ({"ipv6": True}, "http://[$(POD_IP)]:5045"),
        ({"listeners": [{"port": 32000}, {"port": 32001}]}, "http://$(POD_IP):32000"),
    ],
)
def test_replicas_find_each_other_by_the_addresses_of_their_pods(
    chart: Chart, values: dict[str, Any], url: str
) -> None:
    rendered = chart.render(BUCKET, {"proxy": {"upstreams": [HUB]}}, values)
    names = list(rendered.environment)
    # Kubernetes puts in only what stands before.
    assert names.index("POD_IP") < names.index("EDGE_REGISTRY_PROXY__PEER_URL")
    assert rendered.environment["EDGE_REGISTRY_PROXY__PEER_URL"] == url
    assert rendered.settings["proxy"]["spool"] == {"folder": "/var/lib/edge-registry/spool"}


def test_a_replaced_volume_holds_the_spool(chart: Chart) -> None:
    volume = {"hostPath": {"path": "/srv/spool", "type": "Directory"}}
    rendered = chart.render(FOLDER, {"proxy": {"upstreams": [HUB]}, "spool": {"volume": volume}})
    assert {"name": "spool", **volume} in rendered.pod["volumes"]


# Google


def test_googles_library_takes_the_document_for_the_projected_token(chart: Chart, tmp_path: Path) -> None:
    rendered = chart.render(BUCKET, GOOGLE)
    text = rendered.one("ConfigMap")["data"]["credentials.json"]
    document = json.loads(text)
    assert document["audience"] == AUDIENCE
    assert document["service_account_impersonation_url"].endswith("/serviceAccounts/a@b.example:generateAccessToken")
    mounts = {mount["name"]: mount["mountPath"] for mount in rendered.container["volumeMounts"]}
    (volume,) = [volume for volume in rendered.pod["volumes"] if volume["name"] == "google-token"]
    (source,) = volume["projected"]["sources"]
    token = source["serviceAccountToken"]
    assert document["credential_source"]["file"] == f"{mounts['google-token']}/{token['path']}"
    assert token["audience"] == f"https:{AUDIENCE}"
    assert rendered.environment["GOOGLE_APPLICATION_CREDENTIALS"] == f"{mounts['google']}/credentials.json"
    (tmp_path / "token").write_text("eyJ.token")
    document["credential_source"]["file"] = str(tmp_path / "token")
    (tmp_path / "credentials.json").write_text(json.dumps(document))
    assert open_google(tmp_path / "credentials.json").identity == "google:a@b.example"


def test_the_federated_identity_itself_may_read(chart: Chart) -> None:
    given = {"google": {"workloadIdentity": {"enabled": True, "audience": AUDIENCE, "tokenAudience": "https://me"}}}
    rendered = chart.render(BUCKET, given)
    assert "service_account_impersonation_url" not in rendered.one("ConfigMap")["data"]["credentials.json"]
    assert '"audience": "https://me"' in json.dumps(rendered.pod["volumes"])


# Ways in, watching


def test_an_ingress_has_no_class_of_its_own_and_takes_hosts_both_ways(chart: Chart) -> None:
    hosts = ["a.example.org", {"host": "b.example.org", "paths": [{"path": "/v2", "pathType": "Exact"}]}]
    spec = chart.render(BUCKET, {"ingress": {"enabled": True, "hosts": hosts}}).one("Ingress")["spec"]
    assert "ingressClassName" not in spec
    paths = [
        (rule["host"], rule["http"]["paths"][0]["path"], rule["http"]["paths"][0]["pathType"]) for rule in spec["rules"]
    ]
    assert paths == [("a.example.org", "/", "Prefix"), ("b.example.org", "/v2", "Exact")]
    assert spec["rules"][0]["http"]["paths"][0]["backend"]["service"] == {
        "name": "edge-registry",
        "port": {"name": "http"},
    }


def test_a_route_leads_to_the_service_and_limits_no_time(chart: Chart) -> None:
    given = {"httproute": {"enabled": True, "parentRefs": [{"name": "gateway"}]}, "service": {"port": 80}}
    spec = chart.render(BUCKET, given).one("HTTPRoute")["spec"]
    assert spec["parentRefs"] == [{"name": "gateway"}]
    assert spec["rules"][0]["backendRefs"] == [{"name": "edge-registry", "port": 80}]
    assert spec["rules"][0]["timeouts"] == {"request": "0s"}


def test_a_certificate_has_the_names_of_the_service_and_those_given(chart: Chart) -> None:
    rendered = chart.render(BUCKET, CERT_MANAGER)
    spec = rendered.one("Certificate")["spec"]
    assert spec["dnsNames"] == [
        "edge-registry",
        "edge-registry.there",
        "edge-registry.there.svc",
        "r.example.org",
    ]
    assert {"secretName": spec["secretName"], "defaultMode": 0o440} in [
        volume.get("secret") for volume in rendered.pod["volumes"]
    ]
    assert rendered.settings["http"]["tls"]["certificate"] == "/etc/edge-registry/tls/tls.crt"


def test_a_network_policy_opens_what_the_registry_needs(chart: Chart) -> None:
    given = {"proxy": {"upstreams": [{"name": "up.example", "url": "http://up.example:5000"}]}}
    spec = chart.render(BUCKET, given, {"networkPolicy": {"enabled": True}}).one("NetworkPolicy")["spec"]
    assert [port["port"] for rule in spec["ingress"] for port in rule["ports"]] == [5045]
    assert "from" not in spec["ingress"][0]
    outwards = {port["port"] for rule in spec["egress"] for port in rule["ports"] if "to" not in rule}
    assert outwards == {53, 9000, 5000, 443}
    peers = [rule for rule in spec["egress"] if "to" in rule]
    assert [port["port"] for rule in peers for port in rule["ports"]] == [5045]


def test_alerts_ask_for_metrics_that_there_are(chart: Chart) -> None:
    rendered = chart.render(EVERYTHING)
    (group,) = rendered.one("PrometheusRule")["spec"]["groups"]
    metrics = Metrics()
    UpkeepMetrics(metrics.collector)
    UpstreamMetrics(metrics.collector)
    known = set()
    for family in metrics.collector.collect():
        known |= {family.name, f"{family.name}_total", f"{family.name}_bucket"}
    asked = {name for rule in group["rules"] for name in re.findall(r"\b(?:edge_)?registry_\w+", rule["expr"])}
    assert len(asked) >= 9
    assert asked <= known
    assert all('namespace="there",service="edge-registry"' in rule["expr"] for rule in group["rules"])
    assert {rule["labels"]["severity"] for rule in group["rules"]} == {"critical", "warning", "info"}
    local = chart.render(BUCKET, {"prometheusRule": {"enabled": True}}).one("PrometheusRule")["spec"]["groups"][0]
    assert not [rule for rule in local["rules"] if "proxy" in rule["expr"]]


def test_prometheus_asks_the_port_that_speaks(chart: Chart) -> None:
    spec = chart.render(BUCKET, TLS, {"serviceMonitor": {"enabled": True}}).one("ServiceMonitor")["spec"]
    (endpoint,) = spec["endpoints"]
    assert (endpoint["port"], endpoint["scheme"], endpoint["path"]) == ("https", "https", "/metrics")


# Nodes


def test_nodes_are_set_up_by_files_that_the_program_understands(chart: Chart, tmp_path: Path) -> None:
    rendered = chart.render(SCENARIOS["k3s-private"])
    text = rendered.one("ConfigMap", "-nodes")["data"]["node-setup.yaml"]
    (tmp_path / "node-setup.yaml").write_text(text)
    settings = load_nodes(tmp_path / "node-setup.yaml")
    assert settings.hosts == ["container-registry.local:5000", "localhost:31113"]
    assert str(settings.ca_file) == "/etc/edge-registry/nodes/ca.crt"
    assert settings.addresses["container-registry.local"].service == "edge-registry.edge-registry.svc"


def test_the_writer_on_nodes_sees_the_named_folders_alone_and_has_its_own_namespace(chart: Chart) -> None:
    given = {"nodeSetup": {**NODES["nodeSetup"], "namespace": "nodes", "createNamespace": True}}
    rendered = chart.render(BUCKET, given)
    assert {one["metadata"]["namespace"] for one in rendered.objects if one["kind"] == "DaemonSet"} == {"nodes"}
    assert rendered.one("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    pod = dict(rendered.pods())["edge-registry-nodes"]
    paths = {volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
    assert paths == {"/var/lib/edge-registry", "/etc/containerd", "/etc/hosts"}
    (container,) = pod["containers"]
    assert container["args"][:4] == ["node-setup", "watch", "--root", "/node"]
    assert container["args"][-1] in str(container["readinessProbe"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {f"/node{path}" for path in paths} <= mounts
    whole = chart.render(BUCKET, {"nodeSetup": {**NODES["nodeSetup"], "folders": ["/etc"]}})
    volumes = dict(whole.pods())["edge-registry-nodes"]["volumes"]
    assert {volume["hostPath"]["path"] for volume in volumes if "hostPath" in volume} == {
        "/var/lib/edge-registry",
        "/etc",
    }


def test_the_program_on_nodes_knows_its_arguments(chart: Chart) -> None:
    given = []
    for mode in ("apply", "remove"):
        pod = dict(chart.render(BUCKET, {"nodeSetup": {**NODES["nodeSetup"], "mode": mode}}).pods())[
            "edge-registry-nodes"
        ]
        given += [one["args"] for one in [*pod.get("initContainers", []), *pod["containers"]] if "args" in one]
    assert [arguments[1] for arguments in given] == ["watch", "remove"]
    for _, verb, *options in given:
        known = {name for one in get_command(node_setup.commands).commands[verb].params for name in one.opts}  # type: ignore[attr-defined]
        assert {option for option in options if option.startswith("--")} <= known


def test_nodes_give_back_before_the_pod_is_ready(chart: Chart) -> None:
    rendered = chart.render(BUCKET, {"nodeSetup": {**NODES["nodeSetup"], "mode": "remove"}})
    pod = dict(rendered.pods())["edge-registry-nodes"]
    assert [container["args"] for container in pod["initContainers"]] == [["node-setup", "remove", "--root", "/node"]]
    (idle,) = pod["containers"]
    assert "volumeMounts" not in idle
    assert idle["securityContext"]["runAsNonRoot"] is True


def test_selectors_tell_the_registry_its_nodes_program_and_its_test_apart(chart: Chart) -> None:
    rendered = chart.render(EVERYTHING)
    selector = rendered.one("Service")["spec"]["selector"].items()
    assert not selector <= rendered.one("DaemonSet")["spec"]["template"]["metadata"]["labels"].items()
    assert not selector <= rendered.one("Pod")["metadata"]["labels"].items()


# Its test


def run_test_pod(rendered: Rendered, url: str) -> subprocess.CompletedProcess[str]:
    """Runs what the pod of `helm test` runs, asking `url` and no more than once where that fails."""
    (container,) = rendered.one("Pod")["spec"]["containers"]
    name, option, program = container["command"]
    assert (name, option) == ("python3", "-c")
    program, found = re.subn(r'url = "https?://edge-registry\.there\.svc:5045', f'url = "{url}', program)
    assert found == 1
    program = program.replace("monotonic() + 60", "monotonic() - 1")
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)


def test_the_pod_that_tests_says_whether_the_registry_is_ready(chart: Chart, tmp_path: Path) -> None:
    rendered = chart.render(BUCKET)
    with RegistryServer(tmp_path, filesystem_store(tmp_path / "data")) as server:
        done = run_test_pod(rendered, server.url)
        assert (done.returncode, done.stdout) == (0, f"{server.url}/readyz ok\n")
    done = run_test_pod(rendered, server.url)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "refused" in done.stderr


# Notes


@pytest.fixture(scope="module")
def notes(chart: Chart, tmp_path_factory: pytest.TempPathFactory) -> Chart:
    """A copy of the chart that has its notes as an object: helm shows them to a cluster only."""
    copy = tmp_path_factory.mktemp("notes") / "edge-registry"
    shutil.copytree(CHART, copy)
    text = (copy / "templates/NOTES.txt").read_text()
    (copy / "templates/_notes.tpl").write_text('{{ define "notes" }}' + text + "{{ end }}")
    (copy / "templates/notes.yaml").write_text(
        'kind: Notes\nmetadata: {name: notes}\ntext: {{ include "notes" . | toJson }}\n'
    )
    return Chart(chart.helm, copy)


@pytest.mark.parametrize(
    ("values", "host"),
    [
        (SCENARIOS["edge-storage"], "NODE:5045"),
        (SCENARIOS["k3s-private"], "NODE:31113"),
        (SCENARIOS["caching"], "localhost:32001"),
        (SCENARIOS["google-cache"], "localhost:32500"),
        (BUCKET, "localhost:5045"),
        ({**BUCKET, "service": {"type": "LoadBalancer"}}, "ADDRESS:5045"),
        ({**BUCKET, "ingress": {"enabled": True, "hosts": [{"host": "r.example.org"}]}}, "r.example.org"),
    ],
)
def test_the_notes_tell_how_to_log_in_tag_push_and_pull(notes: Chart, values: dict[str, Any] | Path, host: str) -> None:
    text = notes.render(values).one("Notes")["text"]
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("docker ")] == [
        f"docker login {host}",
        f"docker tag hello-world {host}/hello-world",
        f"docker push {host}/hello-world",
        f"docker pull {host}/hello-world",
    ]
    assert f"--server {host} " in text
    assert ("nodeSetup.mode=remove" in text) == (values == SCENARIOS["k3s-private"])
    assert ("port-forward" in text) == (host == "localhost:5045")
    assert ("Without TLS" in text) == (host in ("localhost:32001", "localhost:32500"))

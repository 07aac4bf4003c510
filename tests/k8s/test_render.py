"""k8s/rendered is what the chart says, and can be applied as it is."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.k8s.rendering import SCENARIOS, Rendered, need_helm, run_script
from tests.services.clients import CHECKOUT

pytestmark = pytest.mark.clients
RENDERED = sorted((CHECKOUT / "k8s/rendered").glob("*.yaml"))


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The chart, what was rendered from it, and the script that does so."""
    need_helm(request, tmp_path / "home")
    shutil.copytree(CHECKOUT / "k8s", tmp_path / "k8s")
    (tmp_path / "scripts").mkdir()
    for name in ("render", "env.sh"):
        shutil.copy(CHECKOUT / "scripts" / name, tmp_path / "scripts")
    return tmp_path


def test_what_is_rendered_is_what_the_chart_says(copy: Path) -> None:
    done = run_script(copy / "scripts/render", "--check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name for path in RENDERED} == {f"{name}.yaml" for name in SCENARIOS} | {
        "k3s-private.nodes-removed.yaml"
    }


def test_a_chart_that_changed_is_noticed_and_rendering_mends_it(copy: Path) -> None:
    values = copy / "k8s/chart/edge-registry/values.yaml"
    values.write_text(values.read_text().replace("replicaCount: 1\n", "replicaCount: 1\npriorityClassName: high\n", 1))
    values.write_text(values.read_text().replace('\npriorityClassName: ""\n', "\n", 1))
    done = run_script(copy / "scripts/render", "--check")
    assert done.returncode == 1
    assert "+      priorityClassName: high" in done.stdout
    assert "run scripts/render" in done.stderr
    assert run_script(copy / "scripts/render").returncode == 0
    assert "priorityClassName: high" in (copy / "k8s/rendered/caching.yaml").read_text()
    assert run_script(copy / "scripts/render", "--check").returncode == 0


def test_a_scenario_that_is_gone_leaves_no_manifests(copy: Path) -> None:
    (copy / "k8s/scenarios/k3s-private.yaml").unlink()
    assert run_script(copy / "scripts/render", "--check").returncode == 1
    assert run_script(copy / "scripts/render").returncode == 0
    left = {path.name for path in (copy / "k8s/rendered").iterdir()}
    assert left == {f"{name}.yaml" for name in SCENARIOS if name != "k3s-private"}


def test_a_scenario_that_the_chart_refuses_leaves_what_was_rendered_alone(copy: Path) -> None:
    before = (copy / "k8s/rendered/caching.yaml").read_text()
    scenario = copy / "k8s/scenarios/caching.yaml"
    scenario.write_text(scenario.read_text() + "replicaCount: 2\n")
    done = run_script(copy / "scripts/render")
    assert done.returncode != 0
    assert "several replicas need a bucket" in done.stderr
    assert (copy / "k8s/rendered/caching.yaml").read_text() == before


@pytest.mark.parametrize("path", RENDERED, ids=[path.stem for path in RENDERED])
def test_plain_manifests_say_where_they_belong_and_are_nobodys_but_kubectls(path: Path) -> None:
    text = path.read_text()
    found = Rendered(text).objects
    assert found
    assert all(one["metadata"]["namespace"] for one in found)
    assert "Helm" not in text
    assert "helm.sh/" not in text
    # Deleting the file must not delete a namespace, with a MinIO that somebody keeps in it.
    assert {"Namespace", "Secret"}.isdisjoint(one["kind"] for one in found)


def test_examples_are_hardened_and_hold_no_secret() -> None:
    pods = 0
    for path in sorted((CHECKOUT / "k8s/examples").glob("*.yaml")):
        rendered = Rendered(path.read_text())
        assert "Secret" not in rendered.kinds()
        for name, pod in rendered.pods():
            pods += 1
            assert pod["securityContext"]["runAsNonRoot"] is True, name
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert pod["automountServiceAccountToken"] is False, name
            for container in pod["containers"]:
                context = container["securityContext"]
                assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False), name
                assert context["capabilities"] == {"drop": ["ALL"]}, name
                assert [
                    one["name"]
                    for one in container.get("env", [])
                    if "value" in one and re.search("PASSWORD|SECRET|ACCESS_KEY|_USER", one["name"])
                ] == []
    assert pods == 3


def test_the_minio_of_the_examples_serves_the_bucket_and_secret_of_the_scenario() -> None:
    scenario = yaml.safe_load(SCENARIOS["edge-storage"].read_text())["s3"]
    example = Rendered((CHECKOUT / "k8s/examples/minio.yaml").read_text())
    (bucket,) = example.one("Job")["spec"]["template"]["spec"]["containers"]
    environment = {one["name"]: one.get("value") or one["valueFrom"]["secretKeyRef"] for one in bucket["env"]}
    assert environment["EDGE_REGISTRY_STORAGE__S3__ENDPOINT"] == scenario["endpoint"]
    assert environment["EDGE_REGISTRY_STORAGE__S3__BUCKET"] == scenario["bucket"]
    for key in ("access-key", "secret-key"):
        name = f"EDGE_REGISTRY_STORAGE__S3__{key.upper().replace('-', '_')}"
        assert environment[name] == {"name": scenario["existingSecret"], "key": key}
    service = example.one("Service")
    host = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc:{service['spec']['ports'][0]['port']}"
    assert scenario["endpoint"] == f"http://{host}"


def test_the_readme_gives_the_commands_of_every_scenario_both_ways() -> None:
    text = (CHECKOUT / "k8s/README.md").read_text()
    for name, path in SCENARIOS.items():
        namespace = re.search(r"^# namespace: (\S+)$", path.read_text(), re.MULTILINE)
        assert namespace is not None, name
        assert (
            f"helm install edge-registry k8s/chart/edge-registry -n {namespace[1]} -f k8s/scenarios/{name}.yaml" in text
        )
        assert f"helm uninstall edge-registry -n {namespace[1]}" in text
        assert f"rendered/{name}.yaml" in text

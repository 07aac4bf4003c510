"""The chart rendered by a real helm, and how tests ask what came out."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.services.clients import CHECKOUT, Client, find_program

Object = dict[str, Any]
CHART: Final = CHECKOUT / "k8s/chart/edge-registry"
SCENARIOS: Final = {path.stem: path for path in sorted((CHECKOUT / "k8s/scenarios").glob("*.yaml"))}


def need_helm(request: pytest.FixtureRequest, home: Path) -> Client:
    """helm with a home of its own; skips, or fails under --require-clients, where there is none."""
    program = find_program("helm")
    if program is None:
        if request.config.getoption("--require-clients"):
            pytest.fail("helm is not installed", pytrace=False)
        pytest.skip("helm is not installed")
    return Client(program, home)


class Chart:
    """The chart at `folder`. Values are mappings, put over each other from left to right; `None` in one unsets."""

    def __init__(self, helm: Client, folder: Path = CHART) -> None:
        self.helm = helm
        self._folder = folder

    def render(self, *values: Mapping[str, Any] | Path, namespace: str = "there") -> "Rendered":
        """What would be installed."""
        return Rendered(self.text(*values, namespace=namespace))

    def text(self, *values: Mapping[str, Any] | Path, namespace: str = "there") -> str:
        """The manifests as helm writes them."""
        return self.helm.run(*self._arguments(values, namespace))

    def refusal(self, *values: Mapping[str, Any] | Path) -> str:
        """What helm says where it renders nothing."""
        return self.helm.fail(*self._arguments(values, "there"))

    def _arguments(self, values: tuple[Mapping[str, Any] | Path, ...], namespace: str) -> list[str]:
        options = [
            "template",
            "edge-registry",
            str(self._folder),
            "--namespace",
            namespace,
        ]
        for place, given in enumerate(values):
            file = given
            if not isinstance(given, Path):
                file = self.helm.home / f"values-{place}.json"
                file.write_text(json.dumps(given))
            options += ["--values", str(file)]
        return options


class Rendered:
    """The objects of one rendering."""

    def __init__(self, text: str) -> None:
        self.objects: list[Object] = [found for found in yaml.safe_load_all(text) if found]

    def kinds(self) -> list[str]:
        return sorted(found["kind"] for found in self.objects)

    def one(self, kind: str, suffix: str = "") -> Object:
        """The only object of this kind whose name ends so."""
        (found,) = [one for one in self.objects if one["kind"] == kind and one["metadata"]["name"].endswith(suffix)]
        return found

    def pods(self) -> Iterator[tuple[str, Object]]:
        """Name and specification of everything that runs."""
        for found in self.objects:
            if found["kind"] == "Pod":
                yield found["metadata"]["name"], found["spec"]
            elif found["kind"] in ("Deployment", "DaemonSet", "Job"):
                yield found["metadata"]["name"], found["spec"]["template"]["spec"]

    @property
    def deployment(self) -> Object:
        found: Object = self.one("Deployment")["spec"]
        return found

    @property
    def pod(self) -> Object:
        found: Object = self.deployment["template"]["spec"]
        return found

    @property
    def container(self) -> Object:
        (found,) = self.pod["containers"]
        assert isinstance(found, dict)
        return found

    @property
    def environment(self) -> dict[str, Any]:
        return {one["name"]: one.get("value") for one in self.container["env"]}

    @property
    def settings_text(self) -> str:
        """The registry.yaml."""
        found: str = self.one("ConfigMap", "edge-registry")["data"]["registry.yaml"]
        return found

    @property
    def settings(self) -> Object:
        found: Object = yaml.safe_load(self.settings_text)
        return found


def run_script(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of the checkout, or of a copy, to its end."""
    return subprocess.run([path, *arguments], capture_output=True, text=True, timeout=100, check=False)

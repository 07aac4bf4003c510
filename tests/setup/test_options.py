"""Options, environment, defaults: which wins, and what is refused."""

import re

import pytest

from tests.services.clients import CHECKOUT
from tests.setup.running import WHOLE, Setup

PARTS = ("bucket", "certificates", "deploy", "nodes")


def test_an_option_goes_before_the_environment_and_that_before_the_file(alone: Setup) -> None:
    def name(*options: str, **variables: str) -> str:
        said = alone.succeed("certificates", "--dry-run", *options, **variables).stdout
        found = re.search(r"\S+\.local$", said, re.MULTILINE)
        assert found is not None, said
        return found[0]

    assert name() == "container-registry.local"
    assert name(REGISTRY_NAME="variable.local") == "variable.local"
    assert name("--name", "option.local", REGISTRY_NAME="variable.local") == "option.local"
    assert name("--name=option.local", REGISTRY_NAME="variable.local") == "option.local"


@pytest.mark.parametrize("script", [WHOLE, *PARTS])
def test_help_names_every_option_of_the_file(alone: Setup, script: str) -> None:
    defaults = (CHECKOUT / "scripts/setup/defaults.env").read_text()
    found = re.findall(r"^REGISTRY_([A-Z0-9_]+)=", defaults, re.MULTILINE)
    options = re.findall(r"^  --([a-z0-9-]+)", alone.succeed(script, "--help").stdout, re.MULTILINE)
    assert options == ["dry-run", "uninstall", "delete-data", "new-authority"] + [
        name.lower().replace("_", "-") for name in found
    ]
    assert not alone.state.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--buckett", "x"], "there is no option --buckett"),
        (["--bucket"], "--bucket wants a value"),
        (["bucket"], "bucket is no option"),
        (["--password", "x"], "other people see options: use --password-file, or the environment"),
        (["--port", "many"], "port, timeout and replicas are numbers"),
        (["--parts", "bucket cellar"], "there is no part cellar"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_made(
    alone: Setup, arguments: list[str], complaint: str
) -> None:
    assert complaint in alone.fail(WHOLE, *arguments)
    assert not alone.state.exists() or list(alone.state.iterdir()) == []


@pytest.mark.parametrize("script", [WHOLE, "deploy", "nodes"])
def test_without_a_cluster_it_says_so(alone: Setup, script: str) -> None:
    assert "kubectl" in alone.fail(script)

"""The Kubernetes Secret with which pods pull: one user at any number of servers."""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from app.errors import StartError
from app.nodes.site import parse_host

_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class PullSecret:
    """A Secret of type kubernetes.io/dockerconfigjson. Raises StartError for what Kubernetes or clients would refuse."""

    name: str
    servers: Sequence[str]
    user: str
    namespace: str | None = None

    def __post_init__(self) -> None:
        for what in (self.name, self.namespace):
            if what is not None and not _NAME.fullmatch(what):
                raise StartError(f"{what[:80]!r} is no name in Kubernetes: lower case letters, digits, - and .")
        if not self.servers:
            raise StartError("name at least one server, such as 192.0.2.7:5045")
        if not self.user or ":" in self.user:
            raise StartError("the user's name is empty or has a colon")
        for server in self.servers:
            parse_host(server)

    def manifest(self, password: str) -> str:
        """The Secret as YAML for `kubectl apply -f -`. Raises StartError for an empty password."""
        if not password:
            raise StartError("the password on standard input is empty")
        login = {"username": self.user, "password": password, "auth": _basic(self.user, password)}
        config = json.dumps({"auths": dict.fromkeys(self.servers, login)}, separators=(",", ":"))
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.name} | ({"namespace": self.namespace} if self.namespace else {}),
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(config.encode()).decode()},
        }
        return yaml.safe_dump(secret, sort_keys=False, width=10**6)

    def commands(self) -> list[str]:
        """The lines that make it and use it; kubectl itself makes it for one server only."""
        space = f" --namespace {self.namespace}" if self.namespace else ""
        if len(self.servers) == 1:
            make = (
                f"kubectl create secret docker-registry {self.name}{space} --docker-server={self.servers[0]} "
                f'--docker-username={_quoted(self.user)} --docker-password="$(cat password)"'
            )
        else:
            servers = " ".join(f"--server {server}" for server in self.servers)
            make = (
                f"edge-registry pull-secret {self.name}{space} {servers} --user {_quoted(self.user)} "
                "--password-stdin < password | kubectl apply -f -"
            )
        patch = json.dumps({"imagePullSecrets": [{"name": self.name}]})
        return [make, f"kubectl patch serviceaccount default{space} -p '{patch}'"]


def _basic(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'" if re.search(r"[^A-Za-z0-9_.@-]", text) else text

"""Pushes by podman, from this machine or from a node."""

import tempfile
from pathlib import Path
from typing import Final

from tests.services.clients import Client, find_program
from tests.services.cluster.node import Node
from tests.services.registry import Credentials

POLICY: Final = '{"default": [{"type": "insecureAcceptAnything"}]}'
"""A node has no /etc/containers; this is what Debian's says."""


def push(folder: Path, layout: str, target: str, user: Credentials, ca: Path | None, node: Node | None = None) -> None:
    """Logs in and pushes `layout` (`oci:FOLDER:TAG`) to `target` (`host:port/name:tag`), with its home in `folder`.

    Over TLS where there is an authority `ca`, else over plain HTTP; on `node`, or on this machine without one.
    """
    program = find_program("podman")
    assert program is not None, "podman is not installed"
    trust = ["--tls-verify=false"]
    if ca is not None:
        trusted = folder / "trusted"
        trusted.mkdir(parents=True, exist_ok=True)
        (trusted / "ca.crt").write_bytes(ca.read_bytes())
        trust = ["--cert-dir", str(trusted)]
    # podman wants a short path for its store.
    with tempfile.TemporaryDirectory(prefix="er-") as store:
        places = ("--root", f"{store}/root", "--runroot", f"{store}/run", "--storage-driver", "vfs")
        client = Client(program, folder, options=(*places, "--cgroup-manager", "cgroupfs", "--events-backend", "file"))
        policy = folder / ".config/containers/policy.json"
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text(POLICY)
        name = ("--username", user.name, "--password-stdin")
        _run(client, node, "login", *trust, *name, target.partition("/")[0], stdin=user.password)
        image = _run(client, node, "pull", "--quiet", layout)
        _run(client, node, "push", "--quiet", *trust, image, target)


def _run(client: Client, node: Node | None, *arguments: str, stdin: str = "") -> str:
    if node is None:
        return client.run(*arguments, stdin=stdin)
    command = (str(client.program), *client.options, *arguments)
    return node.run(*command, stdin=stdin, environment=client.environment).strip()

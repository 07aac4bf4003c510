"""What the programs on this host say of themselves, and how kube-proxy leads to node ports."""

import asyncio
import re
import shutil
import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import aiohttp

from app.doctor.names import Host, is_address
from app.doctor.report import Check, failed, ok, warning

_PROGRAMS: Final = {"containerd": "containerd", "docker": "dockerd", "podman": "podman", "k3s": "k3s"}
_PATIENCE: Final = 5.0
_PROXY_MODE: Final = "http://127.0.0.1:10249/proxyMode"
_VERSION: Final = re.compile(r"v?\d+\.\d+[\w.+~-]*")


async def find_versions() -> dict[str, str]:
    """The clients whose program is on PATH -> `containerd 1.7.24`."""
    found = await asyncio.gather(*(_version(name, program) for name, program in _PROGRAMS.items()))
    return {name: text for name, text in zip(_PROGRAMS, found, strict=True) if text is not None}


async def _version(name: str, program: str) -> str | None:
    path = await asyncio.to_thread(shutil.which, program)
    if path is None:
        return None
    try:
        process = await asyncio.create_subprocess_exec(
            path,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(_PATIENCE):
            output, _ = await process.communicate()
    except TimeoutError:
        return f"{name} (it does not answer)"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    version = _VERSION.search(output.decode(errors="replace"))
    return f"{name} {version[0].removeprefix('v')}" if version else name


async def examine_node_port(hosts: Sequence[Host]) -> list[Check]:
    """Whether node ports answer at localhost, which depends on kube-proxy."""
    through = [host.text for host in hosts if host.node_port]
    if not through:
        return []
    mode, port = await _proxy_mode(), through[0].rpartition(":")[2]
    fix = f"use the node's own address, as NODE_IP:{port}, in image names and pull secrets"
    if mode == "iptables":
        return [ok("node port", f"{through[0]} answers: kube-proxy runs in iptables mode")]
    if mode in ("nftables", "ipvs"):
        return [failed("node port", f"kube-proxy runs in {mode} mode, which answers no node port at localhost", fix)]
    found = f"{through[0]} answers only where kube-proxy uses iptables, not nftables or ipvs; its mode is not known"
    return [warning("node port", found, fix)]


async def _proxy_mode() -> str | None:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as session,
            session.get(_PROXY_MODE) as response,
        ):
            return (await response.text()).strip() if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None


async def examine_names(hosts: Sequence[Host]) -> list[Check]:
    """Whether this host can tell where the names of the registry lead."""
    names = [name for name in dict.fromkeys(host.name for host in hosts) if not is_address(name)]
    return [await _resolved(name) for name in names if name != "localhost"]


async def _resolved(name: str) -> Check:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        fix = f"add the name to DNS, or `ADDRESS {name}` to /etc/hosts (`edge-registry node-setup` does)"
        return warning(f"name {name}", "this host cannot tell where it leads", fix)
    return ok(f"name {name}", f"leads to {found[0][4][0]}")

"""A node: namespaces of its own on this machine, joined to it by one cable, and the processes in them.

It has its own network, process numbers and mounts, and its own /etc, /var, /run and /srv, so nothing that runs on it touches
this machine: no interface, no iptables rule, no file outside the node's folder. Its first process ends when the process
that started it does, however that ends, and takes all others with it.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from tests.services.cluster.programs import installed

INIT: Final = Path(__file__).with_name("node.sh")
CABLES: Final = 200
RUN_SECONDS: Final = 240.0
TASKS: Final = "run/containerd/io.containerd.runtime.v2.task"
"""Where containerd has a folder for each container, `<namespace>/<id>`, and so its control group is called."""
UNCOPIED: Final = (
    *("shadow*", "gshadow*", "ssh", "docker", "rancher", "containerd", "containers", "cni", "kubernetes"),
    *("edge-registry", "hosts", "resolv.conf"),
)
"""What a new node does not have from this machine: its secrets, and the settings of its container runtimes."""


class Process:
    """A program that runs on a node; its output is in `log`."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._popen = popen

    @property
    def ended(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._popen.poll()

    def tail(self) -> str:
        """The end of its output."""
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self, seconds: float = 20) -> None:
        """SIGTERM, then SIGKILL; returns once it has ended."""
        _signal_child(self._popen.pid, "-TERM")
        try:
            self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL; returns once it has ended."""
        _signal_child(self._popen.pid, "-KILL")
        self._popen.wait()


class Node:
    """One node, with its files below `folder`, which may not be below /etc, /var, /run or /srv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        assert not any(self.folder.is_relative_to(place) for place in ("/etc", "/var", "/run", "/srv")), (
            f"{self.folder} would be hidden from the node; choose another temporary folder"
        )
        self.processes: list[Process] = []
        self.network = 0
        self._init: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def address(self) -> str:
        """The node's own address, which this machine reaches."""
        return f"10.231.{self.network}.2"

    @property
    def outside(self) -> str:
        """The address of this machine, as the node and its pods reach it."""
        return f"10.231.{self.network}.1"

    @property
    def etc(self) -> Path:
        """The node's /etc, from outside."""
        return self.folder / "etc"

    @property
    def var(self) -> Path:
        """The node's /var, from outside."""
        return self.folder / "var"

    @property
    def srv(self) -> Path:
        """The node's /srv, from outside."""
        return self.folder / "srv"

    @property
    def cgroup(self) -> str:
        """The control group below which its containers run."""
        return f"/edge-registry-node-{self.network}"

    def start(self) -> "Node":
        """Makes the namespaces and the cable. Needs root."""
        self._furnish()
        self._init = subprocess.Popen(
            [
                *(installed("unshare"), "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("bash", str(INIT), str(self.folder)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._init.stdout is not None
        said = self._init.stdout.readline()
        assert said == b"ready\n", f"the namespaces of a node could not be made: {said!r}"
        self._pid = _child(self._init.pid)
        self._plug()
        return self

    def stop(self) -> None:
        """Ends every process of the node, then removes its cable, its control groups and what it kept in its folder."""
        init, self._init = self._init, None
        if init is None:
            return
        assert init.stdin is not None
        assert init.stdout is not None
        init.stdin.close()
        init.wait()
        init.stdout.close()
        for process in self.processes:
            process.kill()
        subprocess.run([installed("ip"), "link", "delete", self._cable], capture_output=True, check=False)
        for task in (self.folder / TASKS).glob("*/*"):
            remove_cgroups(f"/{task.parent.name}/{task.name}")
        remove_cgroups(self.cgroup)
        self._clear()

    def spawn(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> Process:
        """Starts a program that stays; its output goes to `<name>.log` in the node's folder."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = Process(name, self._popen(command, output, environment), log)
        self.processes.append(process)
        return process

    def run(self, *command: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
        """Runs a program on the node to its end and returns standard output; fails where it fails."""
        done = self.attempt(*command, stdin=stdin, environment=environment)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def attempt(
        self, *command: str, stdin: str = "", environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program on the node to its end, whatever that is."""
        return subprocess.run(
            self._entered(command),
            env=_environment(environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    def check_alive(self) -> None:
        """Fails, with the end of its output, where a program that should stay has ended."""
        for process in self.processes:
            assert process.ended is None, f"{process.name} ended with {process.ended}:\n{process.tail()}"

    @property
    def _cable(self) -> str:
        return f"er-node{self.network}"

    def _furnish(self) -> None:
        self._clear()
        shutil.copytree("/etc", self.etc, symlinks=True, ignore=shutil.ignore_patterns(*UNCOPIED))
        (self.etc / "hosts").write_text("127.0.0.1\tlocalhost\n::1\tlocalhost\n")
        for name in ("run", "srv", "var/lib", "var/log", "var/tmp"):
            (self.folder / name).mkdir(parents=True)
        (self.var / "run").symlink_to("/run")

    def _clear(self) -> None:
        for name in ("etc", "var", "run", "srv"):
            if (self.folder / name).exists():
                shutil.rmtree(self.folder / name)

    def _plug(self) -> None:
        ip = installed("ip")
        for self.network in range(1, CABLES):
            made = subprocess.run(
                [ip, "link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid)],
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode == 0:
                break
            assert "File exists" in made.stderr, made.stderr
        _run(ip, "address", "add", f"{self.outside}/24", "dev", self._cable)
        _run(ip, "link", "set", self._cable, "up")
        self.run(ip, "address", "add", f"{self.address}/24", "dev", "eth0")
        self.run(ip, "link", "set", "eth0", "up")
        self.run(ip, "route", "add", "default", "via", self.outside)
        self.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        (self.etc / "resolv.conf").write_text(f"nameserver {self.address}\n")
        remove_cgroups(self.cgroup)

    def _entered(self, command: Sequence[str]) -> list[str]:
        return [
            *(installed("nsenter"), "--target", str(self._pid), "--net", "--mount", "--pid", "--wd=/", "--"),
            *command,
        ]

    def _popen(
        self, command: Sequence[str], output: IO[bytes], environment: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._entered(command),
            env=_environment(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def remove_cgroups(name: str) -> None:
    """Removes the control group `name`, which begins with a slash, and all below it, in every hierarchy."""
    roots = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]
    for top in (Path(f"{root}{name}") for root in roots):
        _remove_tree(Path(found) for found, _, _ in os.walk(top, topdown=False))


def _remove_tree(groups: Iterable[Path]) -> None:
    for group in groups:
        # The kernel lets go of a group a moment after its last process has ended.
        deadline = time.monotonic() + 5
        while group.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.05)


def _environment(further: Mapping[str, str] | None) -> dict[str, str]:
    return os.environ | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"} | dict(further or {})


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def _child(pid: int) -> int:
    """The only child of a process. Raises AssertionError where it has none, or more."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1, f"process {pid} has the children {children}"
    return int(children[0])


def _signal_child(pid: int, signal: str) -> None:
    """Sends `signal` to the child of nsenter: nsenter itself would end without it."""
    with contextlib.suppress(AssertionError, OSError):
        subprocess.run(["kill", signal, str(_child(pid))], capture_output=True, check=False)

"""The front as a program: `python -m tests.services.front --target URL --port N --rate 40MB`.

Prints its URLs, and what it counted as JSON at SIGUSR1 and at the end (SIGTERM, SIGINT).
"""

import argparse
import json
import signal
from pathlib import Path

from tests.services.front.answers import HubLimit
from tests.services.front.faults import Fault
from tests.services.front.server import Front
from tests.services.front.tokens import TokenService
from tests.services.registry import Credentials

_UNITS = {"kB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "B": 1}


def main() -> None:
    """Runs until it is told to end."""
    options = _parser().parse_args()
    signals = {signal.SIGUSR1, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    front = Front(options.target, certificate=options.certificate, key=options.key, port=options.port)
    front.rate = options.rate
    _set_up(front, options)
    with front:
        print(json.dumps({"url": front.url, "elsewhere": front.elsewhere_url}), flush=True)
        while signal.sigwait(signals) == signal.SIGUSR1:
            print(json.dumps(front.records.totals()), flush=True)
    print(json.dumps(front.records.totals()), flush=True)


def _set_up(front: Front, options: argparse.Namespace) -> None:
    fault = Fault(
        cut=options.cut,
        reset=options.reset,
        stall=options.stall,
        stall_for=options.stall_for,
        rate=options.connection_rate,
        short=options.short,
        corrupt=options.corrupt,
        ignore_range=options.ignore_range,
    )
    if fault != Fault():
        front.on(options.path, fault, times=options.times)
    if options.delay:
        front.on("*", Fault(delay=options.delay))
    if options.status:
        front.on(options.path, Fault(status=options.status), times=options.times)
    if options.redirect:
        front.on("/v2/*/blobs/*", Fault(elsewhere=options.redirect), method="GET")
    if options.hub_limit is not None:
        front.hub = HubLimit(options.hub_limit)
    name, _, password = (options.user or "").partition(":")
    if options.token_life:
        users = {name: password} if name else {}
        front.tokens = TokenService(users, anonymous=not name, life=options.token_life)
    elif name:
        front.login = Credentials(name, password)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tests.services.front", description="a fault front before a registry")
    add = parser.add_argument
    add("--target", required=True, help="URL of the registry behind it")
    add("--port", type=int, default=0, help="port of 127.0.0.1; 0: a free one")
    add("--certificate", type=Path, help="PEM file: speak TLS with this certificate")
    add("--key", type=Path, help="PEM file: the certificate's key")
    add("--rate", type=_size, help="bytes a second of all answers, e.g. 40MB")
    add("--connection-rate", type=_size, help="bytes a second of each answer that --path chooses")
    add("--path", default="/v2/*/blobs/*", help="pattern of the paths that meet what follows (%(default)s)")
    add("--times", type=int, help="how many requests meet it; all unless given")
    add("--cut", type=_size, help="end the connection after so many bytes of a body")
    add("--reset", action="store_true", help="... with RST")
    add("--stall", type=_size, help="pause after so many bytes of a body")
    add("--stall-for", type=float, help="... for so many seconds; for ever unless given")
    add("--short", type=_size, help="end bodies early, with a Content-Length that says so")
    add("--corrupt", type=_size, help="flip the byte at this offset")
    add("--ignore-range", action="store_true", help="answer ranges with whole bodies")
    add("--status", type=int, help="answer with this status")
    add("--delay", type=float, help="seconds before each answer")
    add("--redirect", help="redirect blobs: `host`, `relative`, or the base URL of another host")
    add("--user", help="name:password that clients must bring")
    add("--token-life", type=float, help="ask for Bearer tokens, which are good for so many seconds")
    add("--hub-limit", type=int, help="answer 429 after so many pulls of manifests")
    return parser


def _size(text: str) -> int:
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return int(float(text.removesuffix(unit)) * factor)
    return int(text)


if __name__ == "__main__":
    main()

"""The fault front: an HTTP server before a real registry that breaks its answers as tests wish, and counts everything.

`server.py` is the front, `faults.py` what it can do to answers, `tokens.py` its token service, `answers.py` the limit of
pulls and the signed links, `records.py` what it saw. `python -m tests.services.front --help` runs it by itself.
"""

from tests.services.front.answers import HubLimit
from tests.services.front.faults import Fault, Rule, portal, redirect, refusal
from tests.services.front.records import Request
from tests.services.front.server import Front
from tests.services.front.tokens import Issued, TokenService

__all__ = ["Fault", "Front", "HubLimit", "Issued", "Request", "Rule", "TokenService", "portal", "redirect", "refusal"]

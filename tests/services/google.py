"""Google's token services for tests: STS, IAM credentials, OAuth tokens and the metadata server, strict about requests."""

import base64
import json
import secrets
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

AUDIENCE: Final = "//iam.googleapis.com/projects/1234567/locations/global/workloadIdentityPools/edge/providers/cluster"
ACCOUNT: Final = "puller@project.iam.gserviceaccount.com"
CLOUD: Final = "https://www.googleapis.com/auth/cloud-platform"
IAM: Final = "https://www.googleapis.com/auth/iam"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
OAUTH: Final = "https://oauth2.googleapis.com/token"  # the audience of assertions, whatever the address
BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class GoogleServices:
    """All four on one loopback port; entered, it serves. The attributes may be changed at any time.

    `counts` has the answered exchanges by service: `sts`, `iam`, `oauth`, `metadata`; `refused` those that were not as
    documented, with the reasons in `complaints`; `asked` every path, also of services that do not exist.
    """

    def __init__(self, token_file: Path, *, token_field: str | None = None) -> None:
        """The subject token must be the current content of `token_file`, or of its JSON field `token_field`."""
        self.url = ""
        self.counts: Counter[str] = Counter()
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.subjects: list[str] = []
        self.lifetime = 3600
        self.refuse = False  # answers as for a principal without the right
        self.status: int | None = None  # answers this status to everything
        self.html = False  # a captive portal
        self.redirect: str | None = None
        self._token_file, self._token_field = token_file, token_field
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._federated: dict[str, float] = {}
        self._issued: dict[str, float] = {}
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._trouble])
        app.router.add_post("/v1/token", self._sts)
        app.router.add_post(f"/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken", self._iam)
        app.router.add_post("/token", self._oauth)
        app.router.add_get("/computeMetadata/v1/instance/service-accounts/default/token", self._metadata)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def address(self) -> str:
        """`host:port`, for GCE_METADATA_HOST."""
        return self.url.removeprefix("http://")

    def accepts(self, token: str) -> bool:
        """Whether a registry would take this access token now."""
        return self._issued.get(token, 0) > time.time()

    def revoke(self) -> None:
        """Every token so far is worth nothing any more."""
        self._issued.clear()
        self._federated.clear()

    def external_account(self, *, impersonate: bool = True) -> dict[str, Any]:
        """A credentials file for Workload Identity Federation."""
        source: dict[str, Any] = {"file": str(self._token_file), "format": {"type": "text"}}
        if self._token_field:
            source["format"] = {"type": "json", "subject_token_field_name": self._token_field}
        info: dict[str, Any] = {
            "type": "external_account",
            "audience": AUDIENCE,
            "subject_token_type": JWT,
            "token_url": f"{self.url}/v1/token",
            "credential_source": source,
        }
        if impersonate:
            path = f"/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
            info["service_account_impersonation_url"] = self.url + path
        return info

    def service_account(self) -> dict[str, Any]:
        """A key file, with the private key."""
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "k1",
            "private_key": key.decode(),
            "client_email": ACCOUNT,
            "token_uri": f"{self.url}/token",
        }

    @web.middleware
    async def _trouble(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.redirect:
            raise web.HTTPTemporaryRedirect(self.redirect)
        if self.html:
            return web.Response(text="<html>Please log in to the hotel</html>", content_type="text/html")
        if self.status:
            return web.Response(status=self.status, text="{}", content_type="application/json")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _sts(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        subject = str(form.pop("subject_token", ""))
        scope = form.pop("scope", "")
        wanted = {
            "grant_type": EXCHANGE,
            "requested_token_type": ACCESS_TOKEN,
            "subject_token_type": JWT,
            "audience": AUDIENCE,
        }
        if request.content_type != "application/x-www-form-urlencoded" or form != wanted:
            return self._bad(f"not an RFC 8693 exchange: {sorted(form)}", "invalid_request")
        if scope not in (CLOUD, IAM):
            return self._bad(f"scope {scope!r}", "invalid_scope")
        if subject != self._subject():
            return self._bad(f"the subject token {subject} is not valid", "invalid_grant")
        if self.refuse:
            return self._bad(f"no such principal in the pool: {subject}", "unauthorized_client")
        self.counts["sts"] += 1
        self.subjects.append(subject)
        token = self._new(self._issued if scope == CLOUD else self._federated)
        answer = {
            "access_token": token,
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": self.lifetime,
        }
        return web.json_response(answer)

    async def _iam(self, request: web.Request) -> web.Response:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._federated.get(token, 0) <= time.time():
            return self._api_error(401, "UNAUTHENTICATED", "no federated token")
        body = await request.json()
        if body.get("scope") != [CLOUD] or not str(body.get("lifetime")).endswith("s"):
            return self._api_error(400, "INVALID_ARGUMENT", f"not as documented: {body}")
        if self.refuse:
            return self._api_error(403, "PERMISSION_DENIED", f"iam.serviceAccounts.getAccessToken for {token}")
        self.counts["iam"] += 1
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lifetime))
        return web.json_response({"accessToken": self._new(self._issued), "expireTime": end})

    async def _oauth(self, request: web.Request) -> web.Response:
        form = await request.post()
        claims = self._claims(str(form.get("assertion", "")))
        if form.get("grant_type") != BEARER or claims is None:
            return self._bad("no signed assertion", "invalid_grant")
        if (claims["iss"], claims["aud"], claims["scope"]) != (ACCOUNT, OAUTH, CLOUD):
            return self._bad(f"claims {claims}", "invalid_grant")
        if self.refuse or claims["exp"] <= time.time():
            return self._bad(f"the assertion {form['assertion']!r} is refused", "invalid_grant")
        self.counts["oauth"] += 1
        answer = {"access_token": self._new(self._issued), "token_type": "Bearer", "expires_in": self.lifetime}
        return web.json_response(answer)

    async def _metadata(self, request: web.Request) -> web.Response:
        if request.headers.get("Metadata-Flavor") != "Google" or "X-Forwarded-For" in request.headers:
            self.complaints.append("no Metadata-Flavor")
            return web.Response(status=403)
        if request.query.get("scopes") != CLOUD:
            self.complaints.append(f"scopes {request.query}")
            return web.Response(status=400)
        if self.refuse:
            return web.Response(status=404, text="no service account")
        self.counts["metadata"] += 1
        answer = {"access_token": self._new(self._issued), "expires_in": self.lifetime, "token_type": "Bearer"}
        return web.json_response(answer, headers={"Metadata-Flavor": "Google"})

    def _subject(self) -> str:
        text = self._token_file.read_text()
        return str(json.loads(text)[self._token_field]) if self._token_field else text

    def _new(self, tokens: dict[str, float]) -> str:
        token = f"ya29.{secrets.token_urlsafe(24)}"
        tokens[token] = time.time() + self.lifetime
        return token

    def _claims(self, assertion: str) -> Mapping[str, Any] | None:
        """What an RS256 JWT claims, where this service's key signed it."""
        signed, _, signature = assertion.rpartition(".")
        try:
            self._key.public_key().verify(_decoded(signature), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
            claims: Mapping[str, Any] = json.loads(_decoded(signed.partition(".")[2]))
        except (InvalidSignature, ValueError):
            return None
        return claims

    def _bad(self, complaint: str, code: str) -> web.Response:
        """The error of RFC 6749; its text repeats secrets on purpose, since nobody may log it."""
        self.counts["refused"] += 1
        self.complaints.append(complaint)
        return web.json_response({"error": code, "error_description": complaint}, status=400)

    def _api_error(self, status: int, code: str, complaint: str) -> web.Response:
        self.counts["refused"] += 1
        self.complaints.append(complaint)
        return web.json_response({"error": {"code": status, "message": complaint, "status": code}}, status=status)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))

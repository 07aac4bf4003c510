"""Where Google's access tokens come from: a credentials file, by google-auth, or the metadata server."""

import importlib
import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from app.proxy.credentials.transport import Transport

_SCOPE: Final = "https://www.googleapis.com/auth/cloud-platform"
_UNUSABLE: Final = (ValueError, KeyError, TypeError, AttributeError)
"""What google-auth raises, besides errors of its own, for files and answers that lack something."""


class Unusable(Exception):
    """A file or an answer that gives no token; the message is safe to show."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and for how many seconds it holds."""

    text: str = field(repr=False)
    seconds: float


class KeyFile:
    """A credentials file of type external_account or service_account.

    It is read at each exchange, and so is the token file that an external account names: both are rotated by others.
    google-auth is asked for `refresh` alone: its `default` and `load_credentials_from_file` ask for the project, and
    `before_request` for a regional access boundary, at services that nobody here needs.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file, blocking. Raises Unusable."""
        self._path = path
        self._errors: Any = importlib.import_module("google.auth.exceptions")
        info = self._info()
        self._credentials(info)
        self.identity = _identity(info)

    def token(self, transport: Transport) -> Token:
        """A new token. Raises Unusable, and Unreachable from the transport."""
        credentials = self._credentials(self._info())
        try:
            credentials.refresh(transport)
            # google-auth's times are in UTC and do not say so
            life = credentials.expiry.replace(tzinfo=UTC) - datetime.now(UTC)
        except (self._errors.GoogleAuthError, *_UNUSABLE, OSError):
            raise Unusable("no token for what the file says") from None
        return _token(credentials.token, life.total_seconds())

    def _info(self) -> dict[str, Any]:
        try:
            info = json.loads(self._path.read_bytes())
        except OSError as exc:
            raise Unusable(f"the file cannot be read: {exc.strerror or type(exc).__name__}") from None
        except ValueError:
            raise Unusable("the file is not JSON") from None
        if not isinstance(info, dict):
            raise Unusable("the file is no JSON object")
        return info

    def _credentials(self, info: dict[str, Any]) -> Any:
        """google-auth's object for the file; nothing is dialled."""
        try:
            _check_addresses(info)
            if info.get("type") == "service_account":
                module: Any = importlib.import_module("google.oauth2.service_account")
                return module.Credentials.from_service_account_info(info, scopes=[_SCOPE])
            if info.get("type") == "external_account":
                _check_source(info)
                module = importlib.import_module("google.auth.identity_pool")
                return module.Credentials.from_info(info, scopes=[_SCOPE])
        except (self._errors.GoogleAuthError, *_UNUSABLE):
            raise Unusable("the file lacks something, or its key is broken") from None
        raise Unusable("its type is neither external_account nor service_account")


class MetadataServer:
    """The metadata server of a Google machine or cluster, at GCE_METADATA_HOST where that is set.

    Asked directly: google-auth's client for it needs another HTTP library, and asks for more than the token.
    """

    identity = "metadata"

    def token(self, transport: Transport) -> Token:
        """A new token. Raises Unusable, and Unreachable from the transport."""
        host = os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_ROOT") or "metadata.google.internal"
        path = "computeMetadata/v1/instance/service-accounts/default/token"
        url = f"http://{host}/{path}?scopes={quote(_SCOPE, safe='')}"
        response = transport(url, headers={"Metadata-Flavor": "Google"})
        try:
            if response.status != 200:
                raise ValueError(response.status)
            answer = json.loads(response.data)
            return _token(answer["access_token"], float(answer["expires_in"]))
        except _UNUSABLE:
            raise Unusable("the metadata server gives no token") from None


def _token(text: Any, seconds: float) -> Token:
    if not isinstance(text, str) or not text.isascii() or not text.isprintable() or not text:
        raise Unusable("the token is no text")
    return Token(text, seconds)


def _identity(info: Mapping[str, Any]) -> str:
    """The service account, or the pool and provider, of a checked file."""
    url = info.get("service_account_impersonation_url")
    if isinstance(url, str):
        return url.rpartition("/")[2].partition(":")[0]
    name = info.get("client_email") or info.get("audience")
    return str(name).removeprefix("//iam.googleapis.com/")


def _check_source(info: Mapping[str, Any]) -> None:
    source = info.get("credential_source")
    if not isinstance(source, dict) or not source.keys() & {"file", "url"}:
        raise Unusable(
            "its credential_source is neither a file nor a URL; for AWS and programs use a credential helper"
        )
    if info.get("subject_token_type", "").startswith("urn:ietf:params:aws:"):
        raise Unusable("it exchanges AWS signatures; use a credential helper")


def _check_addresses(info: Mapping[str, Any]) -> None:
    """Tokens and assertions are sent to these: by https, or to this machine."""
    for name in ("token_url", "service_account_impersonation_url", "token_uri"):
        url = info.get(name)
        if url is None:
            continue
        parts = urlsplit(url) if isinstance(url, str) else None
        if parts is None or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname))):
            raise Unusable(f"its {name} is no https URL")


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False

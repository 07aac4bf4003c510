"""Logins to upstream registries: where they come from."""

from app.proxy.credentials.login import IDENTITY_TOKEN, Credentials, Login
from app.proxy.credentials.sources import open_credentials

__all__ = ["IDENTITY_TOKEN", "Credentials", "Login", "open_credentials"]

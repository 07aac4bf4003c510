"""Which source of logins the configuration of an upstream asks for."""

import shutil

from app.errors import StartError
from app.proxy.credentials.files import ConfigFile
from app.proxy.credentials.google import open_google
from app.proxy.credentials.helper import Helper
from app.proxy.credentials.login import Credentials
from app.proxy.credentials.static import Anonymous, Password, PasswordFile
from app.proxy.settings import CredentialsSettings


def open_credentials(settings: CredentialsSettings | None) -> Credentials:
    """The source; files are read, nobody is dialled. Blocking, for the start. Raises StartError."""
    if settings is None:
        return Anonymous()
    if settings.google is not None:
        return open_google(settings.google.file)
    if settings.config is not None:
        return ConfigFile(settings.config, settings.helper_lifetime)
    if settings.helper is not None:
        if shutil.which(f"docker-credential-{settings.helper}") is None:
            raise StartError(f"there is no program docker-credential-{settings.helper} on PATH")
        return Helper(settings.helper, settings.helper_lifetime)
    if settings.username is None:
        raise StartError("credentials say nothing")
    if settings.password_file is not None:
        return PasswordFile(settings.username, settings.password_file)
    if settings.password is None:
        raise StartError("credentials have a username and no password")
    return Password(settings.username, settings.password)

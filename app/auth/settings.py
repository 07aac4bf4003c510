"""What an operator may set about access; each field is a key below `auth:`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from app.auth.patterns import translated

Right = Literal["pull", "push", "delete", "catalog", "admin"]


class RuleSettings(BaseModel):
    """One rule: these users may do these things with these repositories. A rule only ever grants."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: list[Annotated[str, Field(min_length=1)]] = Field(
        min_length=1,
        description='user names; "*": everybody logged in; "anonymous": everybody, without credentials too',
    )
    repositories: list[str] = Field(
        min_length=1,
        description="patterns of names: `*` within one segment, `**` any depth. What is cached from an upstream begins "
        "with its name: `docker.io/library/*`",
    )
    actions: list[Right] = Field(
        min_length=1,
        description="pull, push, delete, catalog, admin (import and export of archives by HTTP); who may push, delete or "
        "administer there may pull there, too",
    )

    @model_validator(mode="after")
    def _nameless_admins(self) -> "RuleSettings":
        if "admin" in self.actions and "anonymous" in self.users:
            raise ValueError("admin is never granted to callers without credentials")
        return self

    @field_validator("repositories")
    @classmethod
    def _patterns(cls, patterns: list[str]) -> list[str]:
        for pattern in patterns:
            translated(pattern)
        return patterns


class AuthSettings(BaseModel):
    """Users in an htpasswd file, what each may do, and what people without one may do."""

    model_config = ConfigDict(extra="forbid")

    htpasswd: Path | None = Field(None, description="file of users with bcrypt hashes; see `edge-registry user add`")
    realm: str = Field(
        "Edge Registry",
        pattern=r"^[ !#-\[\]-~]{1,128}$",
        description="realm of the Basic challenge; no quotes or backslashes",
    )
    anonymous: Literal["none", "pull", "push"] | None = Field(
        None,
        description="what callers without credentials may do, and so everybody; unset: nothing where there are users or "
        "rules, everything on a loopback address where there are neither",
    )
    rules: list[RuleSettings] = Field(
        [],
        description="who may do what with which repositories: mappings of users, repositories, actions. Without rules "
        "users may do everything; with rules, what a rule or `auth.anonymous` grants and nothing else",
    )
    verdict_seconds: float = Field(300, ge=0, description="how long a verified password is remembered, in seconds")

    @model_validator(mode="after")
    def _closed_by_rules(self) -> "AuthSettings":
        # Who writes rules wants them to hold, also where nobody can log in and everything would be open otherwise.
        if self.rules and self.anonymous is None:
            self.anonymous = "none"
        return self

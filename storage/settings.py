"""What an operator may set about the store; each field is a key below `storage:`."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator


class S3Settings(BaseModel):
    """MinIO or another S3 store. Without keys here, botocore's chain is asked (environment, profile, web identity, instance)."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str | None = Field(None, description="URL of the store, e.g. http://minio:9000; AWS itself when empty")
    bucket: str = Field("registry-edge", description="bucket that holds the registry")
    region: str = Field("us-east-1", description="region named in signatures")
    access_key: str | None = Field(None, description="access key id")
    secret_key: SecretStr | None = Field(None, description="secret key")
    create_bucket: bool = Field(False, description="make the bucket at start when it is not there")
    public_endpoint: str | None = Field(None, description="URL under which clients reach the store, for redirects")
    redirect: bool = Field(False, description="answer blob GETs with a redirect to a presigned URL")
    redirect_lifetime: float = Field(600, gt=0, le=604800, description="seconds a presigned URL lives")
    path_style: bool = Field(True, description="bucket in the path (MinIO) rather than in the host name")
    ca: Path | None = Field(None, description="PEM file of authorities to trust for the store, besides the system's")
    verify: bool = Field(True, description="verify the store's certificate")
    connections: int = Field(
        96, ge=4, le=4096, description="most connections to the store at once, besides those that read blobs"
    )
    buffer_bytes: int = Field(96 << 20, ge=32 << 20, description="most bytes of uploads held in memory at once")


class FilesystemSettings(BaseModel):
    """A folder."""

    model_config = ConfigDict(extra="forbid")

    root: Path = Field(Path("registry-data"), description="folder that holds the registry")


class StorageSettings(BaseModel):
    """Which store: S3 where an endpoint is given, else a folder."""

    model_config = ConfigDict(extra="forbid")

    driver: Literal["s3", "filesystem", "memory"] | None = Field(None, description="s3, filesystem or memory")
    s3: S3Settings = S3Settings()
    filesystem: FilesystemSettings = FilesystemSettings()

    @model_validator(mode="after")
    def _choose(self) -> "StorageSettings":
        if self.driver is None:
            self.driver = "s3" if self.s3.endpoint else "filesystem"
        return self

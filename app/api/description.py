"""The description of the API (OpenAPI): FastAPI's own of the site, every `/v2` endpoint, and what admins do.

Paths, methods and errors come from the code that serves them, what only people know from `operations`. An endpoint that
is missing there makes `describe` fail, and with it a test.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from fastapi import FastAPI

from app.api import admin_operations, catalog, uploads
from app.api.admin_operations import ADMIN, REFUSALS, AdminEndpoint
from app.api.operations import (
    ALWAYS,
    ERROR_HEADERS,
    HEADERS,
    JSON,
    OPERATIONS,
    PARAMETERS,
    TEXT,
    Operation,
    Refusal,
    Schema,
    ref,
)
from app.api.paths import Kind
from app.api.v2 import ENDPOINTS
from app.oci import errors
from app.oci.errors import RegistryError

PATHS: Final[Mapping[Kind, str]] = {
    Kind.BASE: "/v2/",
    Kind.CATALOG: "/v2/_catalog",
    Kind.BLOB: "/v2/{name}/blobs/{digest}",
    Kind.UPLOADS: "/v2/{name}/blobs/uploads/",
    Kind.UPLOAD: "/v2/{name}/blobs/uploads/{upload}",
    Kind.MANIFEST: "/v2/{name}/manifests/{reference}",
    Kind.TAGS: "/v2/{name}/tags/list",
    Kind.REFERRERS: "/v2/{name}/referrers/{digest}",
}
"""How each kind of path is written; a repository's name may hold slashes, which OpenAPI cannot say."""


class Site(FastAPI):
    """A FastAPI application whose schema describes what its routes never see as well: `/v2` and `/api/v1`."""

    def openapi(self) -> Schema:
        """The OpenAPI document, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = describe(super().openapi())
        return self.openapi_schema


def describe(site: Schema) -> Schema:
    """The OpenAPI document `site` with every other endpoint. Raises KeyError for one of `/v2` that nobody described."""
    paths: Schema = {}
    for kind, method, handler in endpoints():
        paths.setdefault(PATHS[kind], {})[method.lower()] = _of_registry(kind, method, handler)
    for (path, method), endpoint in ADMIN.items():
        paths.setdefault(path, {})[method.lower()] = _of_admin(path, method, endpoint)
    components = site.get("components", {})
    components = {**components, "schemas": {**components.get("schemas", {}), **_schemas()}}
    components["securitySchemes"] = {"basic": {"type": "http", "scheme": "basic"}}
    info = {**site["info"], "version": _version(), "summary": "The OCI Distribution Specification, over one bucket."}
    return {**site, "info": info, "paths": {**paths, **site["paths"]}, "components": components}


def endpoints() -> Iterator[tuple[Kind, str, Callable[..., Any]]]:
    """Kind of path, method and handler of everything that `V2` answers; what answers GET answers HEAD too."""
    tables: dict[Kind, dict[str, Callable[..., Any]]] = {
        Kind.BASE: {"GET": catalog.get_base},
        Kind.CATALOG: {"GET": catalog.get_catalog},
        Kind.UPLOADS: {"POST": uploads.post_upload},
        **{kind: {method: one.handle for method, one in methods.items()} for kind, methods in ENDPOINTS.items()},
    }
    for kind, methods in tables.items():
        for method, handler in methods.items():
            yield kind, method, handler
        if "GET" in methods and "HEAD" not in methods:
            yield kind, "HEAD", methods["GET"]


def _of_registry(kind: Kind, method: str, handler: Callable[..., Any]) -> Schema:
    known = OPERATIONS[kind, "GET" if method == "HEAD" and (kind, method) not in OPERATIONS else method]
    in_path = [part[1:-1] for part in PATHS[kind].split("/") if part.startswith("{")]
    possible: set[type[RegistryError] | Refusal] = {*known.errors, *ALWAYS}
    if kind not in (Kind.BASE, Kind.CATALOG):
        possible.add(errors.NameInvalid)
    if method not in ("GET", "HEAD"):
        possible.add(errors.Unsupported)
    return {
        "tags": ["registry"],
        "operationId": f"{method.lower()}_{kind.name.lower()}",
        "parameters": [_parameter(name) for name in (*in_path, *known.parameters.split())],
        **_operation(method, handler, known),
        **_right(known.right or _action(kind, method)),
        "responses": {**_successes(known, method), **_failures(possible, method, known, kind)},
    }


def _of_admin(path: str, method: str, endpoint: AdminEndpoint) -> Schema:
    known = endpoint.known
    possible: set[type[RegistryError] | Refusal] = {*known.errors, *known.refusals, *ALWAYS}
    if method != "GET":
        possible.add(errors.Unsupported)
    return {
        "tags": ["archives"],
        "operationId": f"{method.lower()}_{path.rpartition('/')[2]}",
        "parameters": [
            {"name": name, "in": "query", "description": one.text, "schema": one.schema, "required": one.required}
            for name, one in known.query.items()
        ],
        **_operation(method, endpoint.handle, known),
        **_right(known.right),
        "responses": {**_successes(known, method), **_failures(possible, method, known)},
    }


def _operation(method: str, handler: Callable[..., Any], known: Operation) -> Schema:
    """What is said of every endpoint alike."""
    described: Schema = {
        "summary": (handler.__doc__ or "").partition("\n")[0],
        "security": [{"basic": []}, {}],
    }
    if known.body:
        described["requestBody"] = {"content": _content(known.body), "required": known.body_required}
    return described


def _action(kind: Kind, method: str) -> str:
    """What the caller needs for an endpoint of `ENDPOINTS`; nothing for the others."""
    endpoint = ENDPOINTS.get(kind, {}).get(method) or ENDPOINTS.get(kind, {}).get("GET")
    return f"`{endpoint.action}` on the repository" if endpoint else ""


def _right(text: str) -> Schema:
    return {"description": f"Takes the action {text}."} if text else {}


def _parameter(name: str) -> Schema:
    place, text, schema = PARAMETERS[name]
    required = place == "path" or name == "_state"
    return {
        "name": name.removesuffix("-query"), "in": place, "description": text, "schema": schema, "required": required
    }  # fmt: skip


def _successes(known: Operation, method: str) -> Schema:
    return {
        str(status): {
            "description": answer.text,
            "headers": _described(answer.headers),
            **({} if method == "HEAD" or not answer.body else {"content": _content(answer.body)}),
        }
        for status, answer in known.answers.items()
    }


def _failures(
    possible: Iterable[type[RegistryError] | Refusal], method: str, known: Operation, kind: Kind | None = None
) -> Schema:
    """One entry a status, with every code that comes with it."""
    found: Schema = {}
    for error in sorted(possible, key=lambda error: (error.status, error.code, error.text)):
        answer = found.setdefault(str(error.status), {"description": "", "headers": {}})
        answer["description"] += f"`{error.code}`: {error.text}. "
        answer["headers"] = _described(
            ERROR_HEADERS.get((kind, error.status), ERROR_HEADERS.get((None, error.status), ""))
        )
        if method != "HEAD":
            answer["content"] = {JSON: {"schema": known.failures.get(error.status, ref("Errors"))}}
    return found


def _described(headers: str) -> Schema:
    return {name: {"description": HEADERS[name], "schema": TEXT} for name in headers.split()}


def _content(body: Mapping[str, Schema]) -> Schema:
    return {media_type: {"schema": schema} for media_type, schema in body.items()}


def _schemas() -> Schema:
    names = {"type": "array", "items": TEXT}
    error = {
        "type": "object",
        "required": ["code"],
        "properties": {"code": {"type": "string", "enum": _codes()}, "message": TEXT, "detail": {}},
    }
    listed = {"type": "array", "minItems": 1, "items": error}
    tags = {"type": "object", "required": ["name", "tags"], "properties": {"name": TEXT, "tags": names}}
    return {
        "Errors": {"type": "object", "required": ["errors"], "properties": {"errors": listed}},
        "Manifest": {"type": "object", "description": "A manifest, index or artifact; kept byte for byte."},
        "Repositories": {"type": "object", "required": ["repositories"], "properties": {"repositories": names}},
        "Tags": tags,
        **admin_operations.schemas(),
    }


def _codes() -> list[str]:
    specified = {error.code for error in RegistryError.__subclasses__()}
    return sorted({RegistryError.code, *specified, *(refusal.code for refusal in REFUSALS)})


def _version() -> str:
    try:
        return version("edge-registry")
    except PackageNotFoundError:
        return "run from its sources"

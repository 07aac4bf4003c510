"""The description of the API says what the code serves."""

import json
import re
from typing import Any

import pytest

from app.api import operations
from app.api.admin_operations import ADMIN, REFUSALS
from app.api.description import PATHS, Site, describe, endpoints
from app.api.operations import OPERATIONS, PARAMETERS
from app.api.paths import Kind, parse_path
from app.api.v2 import ENDPOINTS
from app.oci.errors import RegistryError
from app.settings import Settings
from app.transfer.errors import ArchiveRefused
from app.transfer.exports.exporting import ExportRefused
from tests.services.app import running

EXAMPLES = {
    "name": "team/deep/app",
    "digest": "sha256:" + "0" * 64,
    "reference": "v1",
    "upload": "0f9c8e7d",
}
METHODS = {"get", "head", "put", "post", "patch", "delete"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(json.dumps(Site(title="Edge Registry").openapi()))
    return read


def operations_of(
    document: dict[str, Any], below: tuple[str, ...] = ("/v2", "/api/v1")
) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (path, method.upper()): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if path.startswith(below) and method in METHODS
    }


def test_every_endpoint_that_is_served_is_described_and_no_other(document: dict[str, Any]) -> None:
    served = {(PATHS[kind], method) for kind, methods in ENDPOINTS.items() for method in methods}
    served |= {(PATHS[Kind.UPLOADS], "POST"), (PATHS[Kind.BASE], "GET"), (PATHS[Kind.CATALOG], "GET")}
    served |= {(path, "HEAD") for path, method in served if method == "GET"}
    assert set(operations_of(document, ("/v2",))) == served
    assert set(OPERATIONS) <= {(kind, method) for kind, method, _ in endpoints()}
    assert set(PATHS) == set(Kind)


async def test_every_endpoint_for_admins_that_is_served_is_described_and_no_other(document: dict[str, Any]) -> None:
    async with running(Settings.model_validate({"storage": {"driver": "memory"}})) as service:
        routes = service.app._first.admin._routes
    served = {(path, method): handler for path, methods in routes.items() for method, handler in methods.items()}
    described = operations_of(document, ("/api/v1",))
    assert set(described) == set(served)
    for key, operation in described.items():
        assert served[key].__qualname__ == ADMIN[key].handle.__qualname__
        assert operation["summary"] == (served[key].__doc__ or "").partition("\n")[0]


def test_every_endpoint_but_the_first_says_what_action_it_takes(document: dict[str, Any]) -> None:
    taken = {key: operation.get("description", "") for key, operation in operations_of(document).items()}
    assert {path for (path, _), text in taken.items() if not text} == {"/v2/"}
    assert taken["/v2/{name}/blobs/{digest}", "HEAD"] == "Takes the action `pull` on the repository."
    assert taken["/v2/{name}/manifests/{reference}", "DELETE"] == "Takes the action `delete` on the repository."
    assert taken["/v2/_catalog", "GET"].startswith("Takes the action `catalog`;")
    assert all(text.startswith("Takes the action `admin`") for (path, _), text in taken.items() if "/api/" in path)


def test_the_errors_of_archives_are_those_that_are_raised() -> None:
    raised = {(error.code, error.status, error.text) for error in (ArchiveRefused, ExportRefused)}
    assert {(refusal.code, refusal.status, refusal.text) for refusal in REFUSALS} == raised


def test_an_endpoint_without_a_description_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {key: known for key, known in OPERATIONS.items() if key != (Kind.TAGS, "GET")}
    monkeypatch.setattr("app.api.description.OPERATIONS", rest)
    with pytest.raises(KeyError):
        describe({"info": {}, "paths": {}})


@pytest.mark.parametrize("kind", Kind)
def test_a_described_path_is_parsed_as_what_it_is_described_as(kind: Kind) -> None:
    path = PATHS[kind].format(**EXAMPLES)
    parsed = parse_path(path)
    assert parsed is not None
    assert parsed.kind is kind
    assert parsed.name == ("" if kind in (Kind.BASE, Kind.CATALOG) else EXAMPLES["name"])


def test_every_end_of_the_specification_is_there(document: dict[str, Any]) -> None:
    summaries = " ".join(operation["summary"] for operation in operations_of(document).values())
    # end-4 stands for 4a, 4b and 4c, end-7, end-8 and end-12 likewise.
    assert {int(end) for end in re.findall(r"end-(\d+)", summaries)} == set(range(1, 15))


def test_every_parameter_and_header_of_the_specification_is_used(document: dict[str, Any]) -> None:
    used = {
        (parameter["in"], parameter["name"])
        for operation in operations_of(document, ("/v2",)).values()
        for parameter in operation["parameters"]
    }
    assert used == {(place, name.removesuffix("-query")) for name, (place, _, _) in PARAMETERS.items()}
    answered = {
        header
        for operation in operations_of(document).values()
        for answer in operation["responses"].values()
        for header in answer["headers"]
    }
    assert answered == set(operations.HEADERS)


def test_every_failure_has_the_form_of_the_specification_and_every_code_is_known(document: dict[str, Any]) -> None:
    codes = set(
        document["components"]["schemas"]["Errors"]["properties"]["errors"]["items"]["properties"]["code"]["enum"]
    )
    assert codes == {RegistryError.code, *(error.code for error in RegistryError.__subclasses__())}
    assert {"ARCHIVE_INVALID", "EXPORT_INVALID"} <= codes
    for (path, method), operation in operations_of(document).items():
        failures = {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}
        assert {"401", "403", "429", "500", "503"} <= set(failures), path
        for status, answer in failures.items():
            assert set(re.findall(r"`([A-Z_]+)`", answer["description"])) <= codes
            if method == "HEAD":
                assert "content" not in answer
            else:
                schema = answer["content"]["application/json"]["schema"]
                name = "NotImported" if (path, status) == ("/api/v1/import", "400") else "Errors"
                assert schema == {"$ref": f"#/components/schemas/{name}"}


def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    for reference in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert reference in document["components"]["schemas"]
    names = [operation["operationId"] for operation in operations_of(document).values()]
    assert len(names) == len(set(names))
    for (path, _), operation in operations_of(document).items():
        in_path = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]
        assert in_path == re.findall(r"{(\w+)}", path)


def test_the_document_is_made_once() -> None:
    site = Site(title="Edge Registry")
    assert site.openapi() is site.openapi()

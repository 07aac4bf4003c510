"""Manifests and descriptors: what is read, what is refused, and that nothing else ever happens."""

import json
import re
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from app.oci.descriptors import parse_descriptor
from app.oci.digests import digest_of
from app.oci.errors import ManifestInvalid
from app.oci.manifests import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_ARTIFACT,
    OCI_INDEX,
    OCI_MANIFEST,
    digests_named,
    parse_manifest,
    parse_media_type,
)
from tests.oci.strategies import digests

A, B, C = (digest_of(letter) for letter in (b"a", b"b", b"c"))

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=True), st.text(max_size=8), digests)
fields = st.sampled_from(
    ("mediaType", "digest", "size", "config", "layers", "blobs", "manifests", "subject", "annotations", "artifactType")
)
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(fields, inner, max_size=6)),
    max_leaves=12,
)
media_types = st.one_of(
    st.none(), st.sampled_from([OCI_MANIFEST, OCI_INDEX, OCI_ARTIFACT, DOCKER_LIST, DOCKER_MANIFEST]), st.text()
)


def descriptor(digest: str, media_type: str = "application/x", size: object = 1) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def image(**more: object) -> dict[str, Any]:
    return {"schemaVersion": 2, "config": descriptor(A, "application/config"), "layers": [descriptor(B)], **more}


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


@given(st.one_of(st.dictionaries(fields, documents, max_size=8), documents).map(encoded), media_types)
def test_no_json_raises_anything_but_manifest_invalid(data: bytes, content_type: str | None) -> None:
    try:
        parsed = parse_manifest(data, content_type)
    except ManifestInvalid:
        return
    assert {blob.digest for blob in (*parsed.blobs, *parsed.children)} <= digests_named(data)


@given(st.binary(max_size=100), media_types)
@example(b"[" * 200_000, OCI_MANIFEST)
@example(b'{"a":' * 100_000, OCI_MANIFEST)
@example(b'{"schemaVersion":' + b"9" * 10_000 + b"}", OCI_MANIFEST)
@example(b"\xff\xfe{}", None)
@example(b"\xef\xbb\xbf{}", OCI_MANIFEST)
@example(b'{"layers":[{"digest":"\\ud800","size":1}]}', OCI_MANIFEST)
def test_no_bytes_raise_anything_but_manifest_invalid(data: bytes, content_type: str | None) -> None:
    for read in (lambda: parse_manifest(data, content_type), lambda: digests_named(data)):
        try:
            read()
        except ManifestInvalid as exc:
            json.dumps(exc.entries()).encode()


def test_an_image_names_its_blobs_subject_and_annotations() -> None:
    document = image(subject=descriptor(C), annotations={"k": "v"}, mediaType=OCI_MANIFEST)
    parsed = parse_manifest(encoded(document), OCI_MANIFEST + "; charset=utf-8")
    assert [blob.digest for blob in parsed.blobs] == [A, B]
    assert parsed.subject is not None
    assert parsed.subject.digest == C
    assert (parsed.media_type, parsed.is_index) == (OCI_MANIFEST, False)
    assert (parsed.artifact_type, parsed.annotations) == ("application/config", {"k": "v"})


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_index_names_its_children_and_has_no_artifact_type_of_its_config(media_type: str) -> None:
    parsed = parse_manifest(encoded({"schemaVersion": 2, "manifests": [descriptor(A), descriptor(B)]}), media_type)
    assert ([child.digest for child in parsed.children], parsed.blobs) == ([A, B], [])
    assert parsed.is_index
    assert parsed.artifact_type is None


def test_the_artifact_type_wins_over_the_configs_media_type() -> None:
    assert parse_manifest(encoded(image(artifactType="a/b")), OCI_MANIFEST).artifact_type == "a/b"


def test_non_distributable_layers_are_not_asked_for() -> None:
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    parsed = parse_manifest(encoded(image(layers=[descriptor(B, foreign), descriptor(C)])), DOCKER_MANIFEST)
    assert [blob.digest for blob in parsed.blobs] == [A, C]


@pytest.mark.parametrize(
    ("document", "content_type"),
    [
        pytest.param(image(manifests=[]), OCI_MANIFEST, id="two kinds at once"),
        pytest.param({"manifests": [], "layers": []}, OCI_INDEX, id="an index with layers"),
        pytest.param({"manifests": []}, DOCKER_MANIFEST, id="an image that lists manifests"),
        pytest.param({}, OCI_INDEX, id="an index without manifests"),
        pytest.param(image(mediaType=OCI_INDEX), OCI_MANIFEST, id="media types differ"),
        pytest.param(image(mediaType=1), OCI_MANIFEST, id="media type is a number"),
        pytest.param(image(schemaVersion=1), OCI_MANIFEST, id="schema 1"),
        pytest.param({}, "application/vnd.docker.distribution.manifest.v1+prettyjws", id="signed schema 1"),
        pytest.param(image(layers={}), OCI_MANIFEST, id="layers is an object"),
        pytest.param(image(layers=[A]), OCI_MANIFEST, id="a layer is a string"),
        pytest.param(image(layers=[descriptor(A.upper())]), OCI_MANIFEST, id="an invalid digest"),
        pytest.param(image(layers=[descriptor(A, size=-1)]), OCI_MANIFEST, id="a negative size"),
        pytest.param(image(layers=[descriptor(A, size=True)]), OCI_MANIFEST, id="a size that is true"),
        pytest.param(image(layers=[descriptor(A, size=1.5)]), OCI_MANIFEST, id="half a byte"),
        pytest.param(image(subject="x"), OCI_MANIFEST, id="the subject is no descriptor"),
        pytest.param(image(annotations={"k": 1}), OCI_MANIFEST, id="an annotation that is a number"),
        pytest.param(image(), "not a media type", id="an invalid Content-Type"),
        pytest.param({"schemaVersion": 2}, None, id="no media type at all"),
    ],
)
def test_a_document_that_could_mislead_is_refused(document: object, content_type: str | None) -> None:
    with pytest.raises(ManifestInvalid):
        parse_manifest(encoded(document), content_type)


def test_a_key_that_stands_twice_is_refused() -> None:
    data = b'{"schemaVersion":2,"config":null,"layers":[],"layers":[]}'
    for read in (lambda: parse_manifest(data, OCI_MANIFEST), lambda: digests_named(data)):
        with pytest.raises(ManifestInvalid):
            read()


@given(documents, digests, st.integers(0, 5), st.booleans(), st.text(max_size=5), st.booleans())
def test_a_digest_is_found_anywhere(
    beside: object, digest: str, depth: int, as_key: bool, around: str, escaped: bool
) -> None:
    inner: object = {f"{around}{digest}": beside} if as_key else [beside, f"{around}{digest}"]
    for _ in range(depth):
        inner = {"x": [inner]}
    data = encoded({"anything": inner})
    if escaped:
        data = re.sub(rb"sha(256|512):", lambda found: b"\\u0073ha" + found[1] + b"\\u003a", data)
    assert digest in digests_named(data)


@given(digests)
def test_a_descriptor_of_an_unknown_kind_is_still_named(digest: str) -> None:
    data = encoded({"mediaType": "application/vnd.future+json", "parts": {"zstd": {"digest": digest}}})
    assert digests_named(data) == {digest}


@given(documents)
def test_no_value_makes_a_descriptor_raise_anything_else(value: object) -> None:
    try:
        parsed = parse_descriptor(value, "config")
    except ManifestInvalid:
        return
    assert isinstance(value, dict)
    assert (parsed.digest, parsed.size) == (value["digest"], value["size"])


@given(st.text(max_size=40))
@example("text/plain\n")
@example("a/b/c")
@example("a/b;c=d")
@example("../../x/y")
def test_a_media_type_has_no_character_that_could_leave_its_key(text: str) -> None:
    try:
        media_type = parse_media_type(text)
    except ManifestInvalid:
        return
    assert re.fullmatch(r"[!-~]+", media_type)
    assert media_type.count("/") == 1
    assert "," not in media_type
    assert not media_type.startswith(".")

"""Names, tags, digests and references: accepted exactly where the specification's grammar says so."""

import hashlib
import re

import pytest
from hypothesis import example, given, strategies as st

from app.oci.digests import algorithm_of, digest_of, is_digest, parse_algorithm, parse_digest
from app.oci.errors import DigestInvalid, NameInvalid, TagInvalid
from app.oci.names import MAX_LENGTH, parse_name
from app.oci.references import parse_reference, parse_tag
from tests.oci.strategies import digests, names, nearly_names, tags

SPECIFIED_NAME = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
SPECIFIED_TAG = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}"


def accepts_name(text: str) -> bool:
    try:
        return parse_name(text) == text
    except NameInvalid:
        return False


@given(st.one_of(names, nearly_names))
@example("a\n")
@example("a//b")
@example("\uff41")
@example("a___b")
@example("")
def test_a_name_is_accepted_iff_the_specification_matches(text: str) -> None:
    specified = re.fullmatch(SPECIFIED_NAME, text) is not None and len(text) <= MAX_LENGTH
    assert accepts_name(text) is specified


def test_the_longest_name_fits_and_one_more_does_not() -> None:
    assert accepts_name("a" * MAX_LENGTH)
    assert accepts_name("/".join(["a"] * (MAX_LENGTH // 2)))
    assert not accepts_name("a" * (MAX_LENGTH + 1))


@pytest.mark.timeout(5)
@pytest.mark.parametrize("text", ["a" * 100_000 + "!", "a-" * 50_000, "a/" * 50_000, "-" * 254, "a" + "-" * 252 + "!"])
def test_a_hostile_name_costs_no_time(text: str) -> None:
    with pytest.raises(NameInvalid):
        parse_name(text)


@given(st.one_of(tags, st.text("aZ0._-:/", max_size=140), st.text(max_size=10)))
@example("a" * 129)
@example("latest\n")
@example(".a")
def test_a_tag_is_accepted_iff_the_specification_matches(text: str) -> None:
    try:
        accepted = parse_tag(text) == text
    except TagInvalid:
        accepted = False
    assert accepted is (re.fullmatch(SPECIFIED_TAG, text) is not None)


@given(digests)
def test_a_valid_digest_is_accepted_and_says_its_algorithm(text: str) -> None:
    assert parse_digest(text) == text
    assert algorithm_of(parse_digest(text)) == text[:6]


@given(
    st.one_of(
        digests.map(str.upper),
        digests.map(lambda text: text[:-1]),
        digests.map(lambda text: text + "0"),
        digests.map(lambda text: text + "\n"),
        digests.map(lambda text: text[:-1] + "g"),
        digests.map(lambda text: text.replace("sha256", "sha384").replace("sha512", "md5")),
        st.text(max_size=200),
    )
)
def test_anything_else_is_digest_invalid(text: str) -> None:
    with pytest.raises(DigestInvalid) as caught:
        parse_digest(text)
    assert len(str(caught.value.entries())) < 2000


@given(st.binary(max_size=300), st.sampled_from(["sha256", "sha512"]))
def test_a_digest_of_bytes_is_hashlibs(data: bytes, algorithm: str) -> None:
    digest = digest_of(data, algorithm)
    assert digest == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert parse_digest(digest) == digest


@given(st.text(max_size=20))
def test_only_two_algorithms_are_known(text: str) -> None:
    try:
        assert parse_algorithm(text) in ("sha256", "sha512")
    except DigestInvalid:
        assert text not in ("sha256", "sha512")


@given(st.one_of(tags, digests, st.text(max_size=80)))
def test_a_reference_is_exactly_one_of_tag_and_digest(text: str) -> None:
    refusal = DigestInvalid if is_digest(text) else TagInvalid
    try:
        tag, digest = parse_reference(text)
    except refusal:
        return
    assert [tag, digest].count(None) == 1
    assert (tag or digest) == text

from typing import Any

import pytest

from tests.services.app import Running
from tests.services.client import CONFIG, INDEX, MANIFEST, Client, descriptor, digest_of, make_image, make_index

SBOM, SIGNATURE = "application/vnd.sbom", "application/vnd.signature"


async def attach(api: Client, subject: dict[str, Any], layer: bytes, **fields: Any) -> bytes:
    """Pushes an image that refers to `subject`; returns its bytes."""
    image = make_image(layer, subject=subject, **fields)
    for data in image.blobs:
        await api.push_blob("a", data)
    answer = (await api.put_manifest("a", image.digest, image.data)).expect(201)
    assert answer.header("oci-subject") == subject["digest"]
    return image.data


async def referrers(api: Client, digest: str, query: str = "") -> list[dict[str, Any]]:
    answer = (await api.get(f"/v2/a/referrers/{digest}{query}")).expect(200)
    assert answer.header("content-type") == INDEX
    document = answer.json()
    assert document["schemaVersion"] == 2
    assert document["mediaType"] == INDEX
    assert answer.header("link") is None
    found: list[dict[str, Any]] = document["manifests"]
    return found


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_referrer_is_listed_with_its_type_and_annotations(api: Client, algorithm: str) -> None:
    image = await api.push_image("a", "t", b"x")
    subject = descriptor(image.data, MANIFEST, algorithm)
    data = await attach(api, subject, b"sbom", artifactType=SBOM, annotations={"k": "v"})
    assert await referrers(api, subject["digest"]) == [
        {**descriptor(data, MANIFEST), "artifactType": SBOM, "annotations": {"k": "v"}}
    ]
    assert await referrers(api, digest_of(data)) == []


async def test_the_artifact_type_is_the_configs_where_there_is_none(api: Client) -> None:
    subject = descriptor((await api.push_image("a", "t", b"x")).data, MANIFEST)
    await attach(api, subject, b"sbom")
    (found,) = await referrers(api, subject["digest"])
    assert found["artifactType"] == CONFIG


async def test_an_index_may_refer(api: Client) -> None:
    image = await api.push_image("a", "t", b"x")
    subject = descriptor(image.data, MANIFEST)
    data = make_index([subject], subject=subject, artifactType=SIGNATURE)
    (await api.put_manifest("a", "sig", data, INDEX)).expect(201)
    assert await referrers(api, image.digest) == [{**descriptor(data, INDEX), "artifactType": SIGNATURE}]


async def test_a_filter_says_that_it_was_applied(api: Client) -> None:
    subject = descriptor((await api.push_image("a", "t", b"x")).data, MANIFEST)
    sbom = await attach(api, subject, b"sbom", artifactType=SBOM)
    await attach(api, subject, b"signature", artifactType=SIGNATURE)
    target = f"/v2/a/referrers/{subject['digest']}"
    answer = (await api.get(f"{target}?artifactType={SBOM}")).expect(200)
    assert [entry["digest"] for entry in answer.json()["manifests"]] == [digest_of(sbom)]
    assert answer.header("oci-filters-applied") == "artifactType"
    assert (await api.get(target)).header("oci-filters-applied") is None
    assert len(await referrers(api, subject["digest"])) == 2
    assert (await api.get(f"{target}?artifactType=none")).json()["manifests"] == []


async def test_a_subject_may_come_later_or_never(api: Client) -> None:
    image = make_image(b"later")
    subject = descriptor(image.data, MANIFEST)
    data = await attach(api, subject, b"sbom", artifactType=SBOM)
    assert [entry["digest"] for entry in await referrers(api, image.digest)] == [digest_of(data)]
    await api.push_image("a", "t", b"later")
    assert [entry["digest"] for entry in await referrers(api, image.digest)] == [digest_of(data)]
    (await api.delete(f"/v2/a/manifests/{image.digest}")).expect(202)
    assert [entry["digest"] for entry in await referrers(api, image.digest)] == [digest_of(data)]


async def test_a_deleted_referrer_is_gone_and_comes_back_with_a_push(api: Client) -> None:
    subject = descriptor((await api.push_image("a", "t", b"x")).data, MANIFEST)
    data = await attach(api, subject, b"sbom", artifactType=SBOM)
    (await api.delete(f"/v2/a/manifests/{digest_of(data)}")).expect(202)
    assert await referrers(api, subject["digest"]) == []
    await attach(api, subject, b"sbom", artifactType=SBOM)
    assert len(await referrers(api, subject["digest"])) == 1


async def test_pushing_a_referrer_again_lists_it_once(api: Client) -> None:
    subject = descriptor((await api.push_image("a", "t", b"x")).data, MANIFEST)
    for _ in range(3):
        await attach(api, subject, b"sbom", artifactType=SBOM)
    assert len(await referrers(api, subject["digest"])) == 1


async def test_nothing_refers_to_an_unknown_digest_or_repository(api: Client) -> None:
    assert await referrers(api, digest_of(b"")) == []


async def test_referrers_stay_in_their_repository(api: Client) -> None:
    subject = descriptor((await api.push_image("b", "t", b"x")).data, MANIFEST)
    await attach(api, subject, b"sbom", artifactType=SBOM)
    assert (await api.get(f"/v2/b/referrers/{subject['digest']}")).json()["manifests"] == []


async def test_a_refused_referrer_is_not_listed(api: Client) -> None:
    subject = descriptor((await api.push_image("a", "t", b"x")).data, MANIFEST)
    refused = make_image(b"missing", subject=subject)
    (await api.put_manifest("a", "r", refused.data)).expect(404)
    assert await referrers(api, subject["digest"]) == []


async def test_many_referrers_come_in_pages_that_keep_the_filter(light: Running) -> None:
    api = light.client
    subject = descriptor((await api.push_image("a", "t", b"x")).data, MANIFEST)
    pushed = {
        digest_of(await attach(api, subject, bytes([i]), artifactType=(SBOM, SIGNATURE)[i % 2])) for i in range(230)
    }
    for query, expected in (("", 230), (f"?artifactType={SBOM}", 115)):
        target, seen = f"/v2/a/referrers/{subject['digest']}{query}", []
        while target:
            answer = (await api.get(target)).expect(200)
            seen += [entry["digest"] for entry in answer.json()["manifests"]]
            link = answer.header("link")
            target = link[1 : link.index(">")] if link else ""
        assert len(seen) == len(set(seen)) == expected
        assert set(seen) <= pushed

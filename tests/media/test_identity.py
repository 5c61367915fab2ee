"""Names of media: the same for the same bytes, different for everything else."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.media import MediaError
from vlfleet.media.identity import Namer, digest_of_base64, digest_of_bytes, digest_of_frames, pixel_settings

NAMER = Namer(bytes(range(32)))


@given(st.binary(max_size=300))
def test_a_data_url_and_an_upload_of_the_same_bytes_are_one_medium(content: bytes) -> None:
    if content:
        assert digest_of_base64(base64.b64encode(content)) == digest_of_bytes(content)
        assert digest_of_base64(memoryview(bytearray(base64.b64encode(content)))) == digest_of_bytes(content)


@given(st.binary(min_size=1, max_size=50), st.binary(min_size=1, max_size=50))
def test_other_bytes_have_another_digest(one: bytes, other: bytes) -> None:
    digests = digest_of_base64(base64.b64encode(one)), digest_of_base64(base64.b64encode(other))
    assert (digests[0] == digests[1]) == (one == other)


def test_two_spellings_of_the_same_bytes_have_one_digest() -> None:
    assert base64.b64decode("QUI=") == base64.b64decode("QUJ=") == b"AB"
    assert digest_of_base64(b"QUJ=") == digest_of_base64(b"QUI=") == digest_of_bytes(b"AB")


@pytest.mark.parametrize("text", [b"A", b"QUI", b"QUJDRA=", b"QUJDR===", b"QUI=QU=I", b"====", b"QUJD\n"])
def test_what_cannot_be_base64_is_refused(text: bytes) -> None:
    with pytest.raises(MediaError, match="is not valid base64"):
        digest_of_base64(text)


def test_frames_are_named_by_their_order() -> None:
    assert digest_of_frames(b"QUI=,QUJD") != digest_of_frames(b"QUJD,QUI=")


field = st.text(max_size=6)


@given(field, field, field, field, st.binary(max_size=3), st.binary(max_size=3))
def test_tenant_modality_settings_and_digest_all_count(a: str, b: str, c: str, d: str, e: bytes, f: bytes) -> None:
    one = NAMER.name(e, tenant=a, modality=b, settings=f)
    other = NAMER.name(f, tenant=c, modality=d, settings=e)
    assert (one == other) == ((a, b, e, f) == (c, d, f, e))
    assert one.startswith("vlf-")
    assert len(one) == 68


def test_another_fleet_names_differently() -> None:
    assert Namer(bytes(32)).name(b"x") != NAMER.name(b"x")
    with pytest.raises(ValueError, match="32 bytes"):
        Namer(b"short")


def test_settings_are_canonical() -> None:
    assert pixel_settings(mm={"a": 1, "b": {"d": 1, "c": 2}}) == pixel_settings(mm={"b": {"c": 2, "d": 1}, "a": 1})
    assert pixel_settings(mm=None, io={}) == pixel_settings()
    assert pixel_settings(mm={"a": 1}) != pixel_settings(io={"a": 1})

"""data: URLs: what is read, and what is refused with which words."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.media import MediaError, decode_data_url


@given(st.binary(max_size=300))
def test_any_bytes_come_back(content: bytes) -> None:
    body = base64.b64encode(content).decode()
    # the last form is the one in Qwen's own README
    for head in (
        "data:image/png;base64",
        "data:image/svg+xml;charset=utf-8;base64",
        "DATA:Image/PNG;BASE64",
        "data:image;base64",
    ):
        assert decode_data_url(f"{head},{body}") == content


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a.png", "https://x/a.jpg", "file:///etc/passwd", "/etc/passwd", "", "iVBORw0KGgo=", "ftp:,"],
)
def test_other_urls_are_never_fetched(url: str) -> None:
    with pytest.raises(MediaError, match="not fetched") as caught:
        decode_data_url(url)
    assert "data:image/png;base64" in caught.value.remedy


@pytest.mark.parametrize(
    "url",
    [
        "data:image/png,rawbytes",
        "data:text/plain;base64,aGk=",
        "data:;base64,aGk=",
        "data:image/png;base64",
        "data:imagery/png;base64,aGk=",
    ],
)
def test_other_data_urls_are_refused(url: str) -> None:
    with pytest.raises(MediaError, match="is no base64 image"):
        decode_data_url(url)


@pytest.mark.parametrize("body", ["a", "====", "aGk", "aG k=", "aGk=\n", "aGk\u00e9", "\u4f60\u597d", "aGk=aGk=="])
def test_broken_base64_is_refused(body: str) -> None:
    with pytest.raises(MediaError, match="not valid base64"):
        decode_data_url(f"data:image/png;base64,{body}")


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(url: str) -> None:
    refusal: MediaError | None = None
    try:
        decode_data_url(url)
    except MediaError as error:
        refusal = error
    assert refusal is None or (refusal.cause and refusal.remedy)


def test_a_long_url_is_not_repeated_in_full() -> None:
    with pytest.raises(MediaError) as caught:
        decode_data_url("http://" + "x" * 10_000)
    assert len(str(caught.value)) < 200

"""URLs and addresses that are let through, and those that are not."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlfleet.media import MediaError
from vlfleet.media.addresses import FetchPolicy, Urls, is_public, plain

PUBLIC = FetchPolicy(Urls.PUBLIC)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700::1111", "::ffff:8.8.8.8", "2a00:1450::1"])
def test_public_addresses(address: str) -> None:
    assert PUBLIC.may_connect(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.2.1", "198.18.0.1",
        "198.51.100.1", "203.0.113.1", "192.88.99.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1",
        "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:10.0.0.1", "::127.0.0.1", "::8.8.8.8", "64:ff9b::7f00:1",
        "64:ff9b::808:808", "64:ff9b:1::1", "2002:7f00:1::", "2002:808:808::", "2001::1", "2001:db8::1", "fd00::1",
        "fd00:ec2::254", "fc00::1", "fe80::1", "fe80::1%lo", "fec0::1", "192.0.0.192", "192.0.0.170", "ff02::1",
        "100::1",
    ],
)  # fmt: skip
def test_addresses_that_lead_inside(address: str) -> None:
    assert not PUBLIC.may_connect(address)


@given(st.ip_addresses(v=4))
def test_ipv4_in_ipv6_is_judged_as_ipv4(address: ipaddress.IPv4Address) -> None:
    mapped = f"::ffff:{address}"
    assert plain(mapped) == address
    assert PUBLIC.may_connect(mapped) == PUBLIC.may_connect(str(address)) == is_public(address)
    for prefix in ("64:ff9b::", "::"):
        assert not PUBLIC.may_connect(f"{prefix}{address}")


def test_a_network_of_ones_own() -> None:
    policy = FetchPolicy(Urls.PUBLIC, networks=(ipaddress.ip_network("10.1.0.0/16"),))
    assert policy.may_connect("10.1.2.3")
    assert policy.may_connect("::ffff:10.1.2.3")
    assert not policy.may_connect("10.2.2.3")
    assert not policy.may_connect("fd00::1")


@pytest.mark.parametrize(
    "url", ["https://example.org/a.png", "http://example.org:80/?q=1#f", "https://bücher.example/ü.jpg", "HTTPS://A.B/"]
)
def test_urls_that_are_fetched(url: str) -> None:
    parsed = PUBLIC.check_url(url)
    assert parsed.host
    assert not parsed.fragment
    with pytest.raises(MediaError, match="URLs are not fetched here"):
        FetchPolicy().check_url(url)


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("file:///etc/passwd", "scheme 'file'"),
        ("ftp://example.org/a.png", "scheme 'ftp'"),
        ("gopher://example.org/", "scheme 'gopher'"),
        ("javascript:alert(1)", "scheme"),
        ("//example.org/a.png", "scheme ''"),
        ("/etc/passwd", "scheme ''"),
        ("", "scheme ''"),
        ("http:///a.png", "without a host|cannot be read"),
        ("http://", "without a host|cannot be read"),
        ("http://user@example.org/", "user or a password"),
        ("http://user:secret@example.org/", "user or a password"),
        ("http://:secret@example.org/", "user or a password"),
        ("http://example.org:22/", "port 22"),
        ("http://example.org:0/", "port 0"),
        ("http://example.org:99999/", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("\\\\server\\share\\a.png", "backslashes"),
        ("http://127.0.0.1\\@example.org/", "backslashes"),
        ("http://exam ple.org/", "spaces"),
        ("http://example.org/\r\nHost: x", "control"),
        ("http://example.org/\0", "control"),
        ("http://example.org/" + "a" * 9000, "URL with spaces"),
    ],
)
def test_urls_that_are_not(url: str, cause: str) -> None:
    with pytest.raises(MediaError, match=cause) as caught:
        PUBLIC.check_url(url)
    assert "secret" not in str(caught.value)


def test_the_allowlist() -> None:
    policy = FetchPolicy(Urls.ALLOWLIST, hosts=frozenset({"example.org", "*.cdn.example"}))
    for url in ("https://example.org/", "https://EXAMPLE.org./", "https://a.cdn.example/", "https://a.b.cdn.example/"):
        policy.check_url(url)
    for url in (
        "https://example.org.evil/", "https://sub.example.org/", "https://cdn.example/", "https://.cdn.example/",
        "https://evilcdn.example/", "https://example.org@evil/", "https://evil/#example.org", "https://evil/?example.org",
    ):  # fmt: skip
        with pytest.raises(MediaError):
            policy.check_url(url)
    with pytest.raises(MediaError, match="not in the fleet's allowlist"):
        FetchPolicy(Urls.ALLOWLIST).check_url("https://example.org/")


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for url in (text, "http://" + text, "https://example.org" + text):
        outcome: object
        try:
            outcome = PUBLIC.check_url(url)
        except MediaError as error:
            outcome = error
        assert isinstance(outcome, MediaError) or (outcome.scheme in ("http", "https") and outcome.host)

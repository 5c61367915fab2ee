"""Which URLs may be fetched for a client, and which addresses may be connected to."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum

from yarl import URL

from vlfleet.media.header import MediaError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "64:ff9b::/96",  # NAT64: an IPv4 address in IPv6 clothes
        "64:ff9b:1::/48",
        "2002::/16",  # 6to4, likewise
        "::/96",  # IPv4-compatible
        "fec0::/10",  # site-local, given up but still routed in places
        "2001::/23",  # Teredo, and other protocols' own
        "192.0.0.0/24",  # protocols' own, and a cloud's metadata
        "168.63.129.16/32",  # Azure's metadata and DNS, on a public address
        "192.88.99.0/24",  # relays of 6to4
    )
)
"""Networks that `ipaddress` of one Python or another calls global, and that lead inside."""
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All that IANA gives out of IPv6."""
NAME = re.compile(r"[A-Za-z0-9._-]+")
"""Of a host as it is looked up, after IDNA; or an IPv4 address in any spelling."""
_SEND_IT = "send the medium itself as a data: URL"


class Urls(StrEnum):
    """What a fleet does with http(s) URLs in requests."""

    DENY = "deny"
    ALLOWLIST = "allowlist"
    PUBLIC = "public"


@dataclass(frozen=True)
class FetchPolicy:
    """`hosts` (names, or `*.name` for all below it) count under ALLOWLIST. `networks` are addresses that may be
    connected to although they are not public, such as that of an object store of one's own."""

    urls: Urls = Urls.DENY
    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    ports: frozenset[int] = frozenset({80, 443})

    def check_url(self, url: str | URL) -> URL:
        """The URL as it is fetched; the same parser makes the connection, so none can read another host from it.

        Raises:
            MediaError: it is not fetched.
        """
        if self.urls is Urls.DENY:
            raise MediaError("points to a medium elsewhere, and URLs are not fetched here", _SEND_IT)
        if isinstance(url, str) and (len(url) > 8192 or any(char <= " " or char in "\\\x7f" for char in url)):
            raise MediaError("is a URL with spaces, backslashes or control characters", _SEND_IT)
        try:
            parsed = URL(url)
            host, port = parsed.host, parsed.port
        except (ValueError, IndexError):  # yarl's own slip on http://[fe80:]@
            raise MediaError("is a URL that cannot be read", _SEND_IT) from None
        if parsed.scheme not in ("http", "https"):
            raise MediaError(f"is a URL with scheme {parsed.scheme[:16]!r}", "use https, or " + _SEND_IT)
        if not host:
            raise MediaError("is a URL without a host", _SEND_IT)
        if not is_host(parsed.raw_host or ""):
            raise MediaError("is a URL whose host is neither a name nor an address", _SEND_IT)
        if parsed.raw_user is not None or parsed.raw_password is not None:
            raise MediaError("is a URL with a user or a password", _SEND_IT)
        if port not in self.ports:
            raise MediaError(f"is a URL with port {port}", "use the standard port, or " + _SEND_IT)
        if self.urls is Urls.ALLOWLIST and not self._listed(host):
            raise MediaError(f"points to {host[:80]}, which is not in the fleet's allowlist", _SEND_IT)
        return parsed.with_fragment(None)

    def _listed(self, host: str) -> bool:
        name = host.lower().rstrip(".")
        return name in self.hosts or any(
            entry.startswith("*.") and name.endswith(entry[1:]) and len(name) > len(entry) - 1 for entry in self.hosts
        )

    def may_connect(self, address: str) -> bool:
        """Whether this very address, of whatever name, may be connected to."""
        ip = plain(address)
        return is_public(ip) or any(ip.version == network.version and ip in network for network in self.networks)


def is_host(text: str) -> bool:
    """Whether this is a name or an address without its brackets. Zones (fe80::1%eth0) lead inside, and are none."""
    if NAME.fullmatch(text):
        return True
    try:
        return "%" not in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def plain(address: str) -> Address:
    """An address without zone, and as IPv4 where it is IPv4 mapped into IPv6.

    Raises:
        ValueError: not a numeric address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def is_public(ip: Address) -> bool:
    """Whether an address lies outside of every private, shared, link-local, reserved or translated network."""
    if not ip.is_global or ip.is_multicast or ip.is_reserved or ip.is_unspecified:
        return False
    if ip.version == 6 and ip not in GLOBAL_UNICAST:
        return False
    return not any(ip.version == network.version and ip in network for network in NOT_PUBLIC)

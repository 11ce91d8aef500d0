"""Keeps the http node away from the deployer's own network (server-side request forgery).

A host is resolved once, every address is checked, and exactly a checked address is connected to:
a name that answers differently the second time gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# What ``is_global`` lets through, though it leads inside, into a tunnel, or nowhere.
_REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "169.254.0.0/16",  # link-local, with the clouds' metadata services
        "192.0.0.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/96",  # IPv4-compatible
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local
        "ff00::/8",
    )
)


class AddressRefused(Exception):
    """The message says which host, and that the deployer can allow it."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One checked address, in the form that ``socket.connect`` takes."""

    family: socket.AddressFamily
    address: tuple[str, int] | tuple[str, int, int, int]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet."""
    ip = _parsed(address)
    if not ip.is_global or ip.is_multicast or ip.is_reserved:
        return False
    return not any(ip in network for network in _REFUSED)


def is_allowed(host: str, address: str, allowed: Iterable[str]) -> bool:
    """Whether ``address``, which ``host`` resolved to, may be connected to.

    ``allowed`` are host names, addresses and networks (CIDR) that may be private.
    """
    if is_public(address):
        return True
    name = host.lower().rstrip(".")
    ip = _parsed(address)
    for entry in allowed:
        if entry.lower().rstrip(".") == name:
            return True
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            continue  # a host name
        if ip in network:
            return True
    return False


def checked(host: str, port: int, allowed: Iterable[str]) -> list[Endpoint]:
    """Resolve ``host``, which may take long, and answer its addresses in the resolver's order.

    Raises AddressRefused where one of them is not allowed, OSError where there are none.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("the host name is not valid") from None
    endpoints: list[Endpoint] = []
    for family, _, _, _, address in found:
        if not is_allowed(host, str(address[0]), allowed):
            raise AddressRefused(
                f"The host {host[:255]} is on a private network, which the http node may not "
                "reach. The deployer can allow it: METRONOME_HTTP_ALLOW_PRIVATE."
            )
        endpoints.append(Endpoint(family, address))  # type: ignore[arg-type]
    if not endpoints:
        raise OSError("the host name has no address")
    return endpoints


def _parsed(address: str) -> _Address:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return mapped or ip

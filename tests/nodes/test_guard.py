from __future__ import annotations

import socket
from typing import Any

import pytest

from app.nodes.guard import AddressRefused, checked, is_allowed, is_public


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "100::1",
    ],
)
def test_an_address_that_leads_inside_is_not_public(address: str) -> None:
    assert not is_public(address)
    assert not is_allowed("name.example", address, ["other.example", "203.0.113.0/24"])


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1", "::ffff:1.1.1.1"])
def test_an_address_of_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("entry", ["Intern.Example", "10.1.2.3", "10.0.0.0/8", "10.9.9.9/8"])
def test_the_deployer_can_allow_by_name_address_or_network(entry: str) -> None:
    assert is_allowed("intern.example.", "10.1.2.3", [entry])
    assert is_allowed("intern.example", "::ffff:10.1.2.3", [entry])
    assert not is_allowed("else.example", "192.168.1.2", ["10.0.0.0/8"])


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "localhost", "::1"])
def test_every_way_to_write_the_own_host_is_refused(host: str) -> None:
    with pytest.raises((AddressRefused, OSError)):
        checked(host, 80, ())


def test_one_private_address_among_public_ones_refuses_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(host: str, port: int, **_: Any) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("1.1.1.1", port)), (*kind, ("10.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with pytest.raises(AddressRefused, match="METRONOME_HTTP_ALLOW_PRIVATE"):
        checked("mixed.example", 80, ())
    assert [e.address[0] for e in checked("mixed.example", 80, ["10.0.0.0/8"])] == [
        "1.1.1.1",
        "10.0.0.1",
    ]

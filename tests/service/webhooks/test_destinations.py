"""Where webhooks may go: every way to write an address inside is refused."""

from __future__ import annotations

import pytest

from evomerge.errors import InputError
from evomerge.service.store.refusals import Refusal
from evomerge.service.webhooks.destinations import Destinations

PUBLIC = Destinations()

INSIDE = (
    *("127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.1", "192.168.0.1"),
    *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1"),
    *("255.255.255.255", "240.0.0.1", "168.63.129.16", "192.0.2.7", "233.252.0.1"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1"),
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "2001:db8::1"),
    *(
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2001::1",
        "3fff::1",
    ),
    *("not an address", "", "2130706433", "0x7f000001", "127.1"),
)


@pytest.mark.parametrize("address", INSIDE)
def test_no_connection_goes_inside(address: str) -> None:
    assert not PUBLIC.allows("hooks.example.com", address)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:4700::1111"])
def test_a_public_address_is_reached(address: str) -> None:
    assert PUBLIC.allows("hooks.example.com", address)
    assert PUBLIC.read_url(f"https://{f'[{address}]' if ':' in address else address}/x")


@pytest.mark.parametrize(
    "host",
    [
        *(f"[{each}]" if ":" in each else each for each in INSIDE if each),
        *("localhost", "LOCALHOST.", "a.localhost", "0177.0.0.1", "0x7f.1", "017700000001"),
        *(
            "1.2.3",
            "evil..com",
            "-a.com",
            "a b.com",
            "ex\u00e4mple.com",
            "a" * 254 + ".com",
            "[::1",
        ),
        *("user@hooks.example.com", "user:pw@hooks.example.com", "@hooks.example.com"),
        *("hooks.example.com:25", "hooks.example.com:0", "hooks.example.com:99999", "a.com:x"),
        *("127.0.0.1\\@hooks.example.com", "hooks.example.com\t", "hooks.example.com\r\nX: y"),
    ],
)
def test_a_url_that_can_only_be_bad_is_refused_at_once_and_not_repeated(host: str) -> None:
    with pytest.raises(Refusal) as refused:
        PUBLIC.read_url(f"https://{host}/path-is-secret")
    assert refused.value.field == "url"
    assert refused.value.mend
    assert "path-is-secret" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        *("http://hooks.example.com/", "ftp://hooks.example.com/", "file:///etc/passwd", "//a.com"),
        *(
            "https:///x",
            "hooks.example.com",
            "",
            "https://a.com/#x",
            "https://a.com/\u00e4",
            "gopher:x",
        ),
        *("https://a.com/" + "x" * 2000, None, 7),
    ],
)
def test_what_is_no_url_of_a_receiver_is_refused(url: object) -> None:
    with pytest.raises(Refusal):
        PUBLIC.read_url(url)


def test_a_url_is_taken_apart_once() -> None:
    target = PUBLIC.read_url("HTTPS://Hooks.Example.com.:8443/a/%20b?c=d")
    assert (target.scheme, target.host, target.port) == ("https", "hooks.example.com", 8443)
    assert target.path == "/a/%20b?c=d"
    assert target.shown == "https://hooks.example.com:8443"
    assert PUBLIC.read_url("https://[2606:4700::1111]").authority == "[2606:4700::1111]"


def test_an_operator_allows_names_addresses_and_networks() -> None:
    allowed = Destinations.read(["10.1.0.0/16", "::1", "Chat.Internal", "192.168.7.7"], http=True)
    for address in ("10.1.2.3", "::1", "192.168.7.7", "::ffff:10.1.0.9", "8.8.8.8"):
        assert allowed.allows("anything.example", address)
    for address in ("10.2.0.1", "127.0.0.1", "192.168.7.8", "fd00::1"):
        assert not allowed.allows("anything.example", address)
        assert allowed.allows("chat.internal", address)
    for url in ("http://chat.internal:8080/x", "http://10.1.2.3/", "http://[::1]:9000/"):
        assert allowed.read_url(url)
    with pytest.raises(Refusal, match="--allow-webhooks"):
        allowed.read_url("http://10.2.0.1/")
    assert Destinations.read(["localhost"]).read_url("https://localhost/")


@pytest.mark.parametrize("bad", ["http://a.com", "a/b", "10.1.2.3/8", "", "*", "127.1", "a:80"])
def test_what_an_operator_cannot_mean_is_one_line(bad: str) -> None:
    with pytest.raises(InputError, match=r"--allow-webhooks .*no host and no network"):
        Destinations.read([bad])

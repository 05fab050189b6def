"""Where webhooks may be sent: to public addresses, and to what the operator allowed besides.

A name is looked up at each connection, and the connection goes to the address that was checked; so
a name that leads elsewhere later, or an unusual form of an address, reaches nothing inside.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

from evomerge.errors import InputError
from evomerge.service.store.refusals import Refusal

LONGEST_URL = 2000
_PORTS = {"http": 80, "https": 443}
_FIRST_FREE_PORT = 1024
"""Below it are the ports of other services, such as mail; 80 and 443 are the web's."""

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")

_NEVER = tuple(
    map(
        ipaddress.ip_network,
        (
            # They lead to an IPv4 address that is written inside.
            *("2002::/16", "64:ff9b::/96", "64:ff9b:1::/48"),
            # Special ones that older versions of Python take for global.
            *("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "3fff::/20", "5f00::/16"),
            "168.63.129.16/32",  # of Azure, for the machine itself; those of others are not global
        ),
    )
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A URL in its parts. host: in lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def shown(self) -> str:
        """Scheme, host and port: the rest may hold a secret."""
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port, as in the header Host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Destinations:
    """What an operator allows besides public https addresses.

    hosts: names that may lead to any address. networks: addresses that are not public. http:
    whether addresses without TLS are taken.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    http: bool = False

    @classmethod
    def read(cls, allowed: Sequence[str], *, http: bool = False) -> Destinations:
        """Names of hosts, addresses and networks as an operator writes them. Raises InputError."""
        hosts, networks = set(), []
        for each in allowed:
            try:
                networks.append(ipaddress.ip_network(each.strip("[]")))
            except ValueError:
                name = each.lower().removesuffix(".")
                if not _is_name(name) or _ends_in_number(name):
                    raise InputError(
                        f"--allow-webhooks {each}: no host and no network; write a name, an "
                        "address, or a network such as 10.1.0.0/16"
                    ) from None
                hosts.add(name)
        return cls(hosts=frozenset(hosts), networks=tuple(networks), http=http)

    def read_url(self, url: object) -> Target:
        """The parts of a URL that may be called, as far as that is known before a look-up.

        Raises Refusal, which never repeats the URL: it may hold a secret.
        """
        if not isinstance(url, str) or not 1 <= len(url) <= LONGEST_URL:
            raise _refused("not a URL", f"give one of 1 to {LONGEST_URL} characters")
        if any(not "!" <= sign <= "~" or sign in '\\"<>' for sign in url):
            raise _refused(
                "has a sign that no URL has", "percent-encode its path, and write its host in ASCII"
            )
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _refused("not a URL", "write https://HOST/PATH") from None
        if parts.scheme not in _PORTS or not parts.hostname:
            raise _refused("not a URL of the web", "write https://HOST/PATH")
        if parts.scheme == "http" and not self.http:
            raise _refused(
                "it is http, so anyone on the way can read it",
                "use https, or let the operator allow it with --allow-http-webhooks",
            )
        if "@" in parts.netloc:
            raise _refused(
                "has a user or a password in it", "leave them out; the signature says who sends"
            )
        if "#" in url:
            raise _refused("has a fragment", "leave out what comes after #")
        port = _PORTS[parts.scheme] if port is None else port
        if port not in _PORTS.values() and port < _FIRST_FREE_PORT:
            raise _refused(
                f"port {port} is not of a web server", "use 80, 443, or one from 1024 on"
            )
        target = Target(
            scheme=parts.scheme,
            host=parts.hostname.removesuffix("."),
            port=port,
            path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        )
        self._check_host(target.host)
        return target

    def _check_host(self, host: str) -> None:
        """Refuse at once what a look-up could only confirm."""
        address = _address(host)
        if address is None and (not _is_name(host) or _ends_in_number(host)):
            raise _refused("its host is no name and no address", "write https://HOST/PATH")
        local = host == "localhost" or host.endswith(".localhost")
        refused = local if address is None else not self.allows(host, host)
        if refused and host not in self.hosts:
            raise _refused(
                "its host is not a public one",
                "give another, or let the operator allow it with --allow-webhooks",
            )

    def allows(self, host: str, address: str) -> bool:
        """Whether a connection to this address of a host may be made."""
        found = _address(address)
        if found is None:
            return False
        if host in self.hosts:
            return True
        return any(found in network for network in self.networks) or _is_public(found)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address of a text; one of IPv4 that is written as one of IPv6 is taken out of it."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            return None
        return found.ipv4_mapped or found
    return found


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    if any(address in network for network in _NEVER):
        return False
    if isinstance(address, IPv6Address) and address.is_site_local:
        return False
    return (
        address.is_global
        # Some of these are global too.
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_private
    )


def _is_name(host: str) -> bool:
    return len(host) <= 253 and all(_LABEL.fullmatch(label) for label in host.split("."))


def _ends_in_number(host: str) -> bool:
    """Whether systems would read the host as an address, such as 2130706433 or 0x7f.1."""
    last = host.rpartition(".")[2]
    return last.isdigit() or re.fullmatch(r"0x[0-9a-f]*", last) is not None


def _refused(what: str, mend: str) -> Refusal:
    return Refusal(what, field="url", mend=mend)

"""Tenants by the domain of the user's e-mail address, as a proxy that signs users in passes it on.

    config:
      header: X-User-Email                             # the default
      domains: { acme.com: acme, globex.example: globex }

A subdomain belongs to the tenant of the longest domain that it ends in. Somebody without an address
is left to the next resolver, and so is a domain that is not listed. What is no single address is
refused: it should not have come past the proxy.
"""

import json
import re
from dataclasses import dataclass

import wit_world
from componentize_py_types import Err
from wit_world.imports.types import (
    Decision,
    Decision_Deny,
    Decision_Next,
    Decision_Place,
    Denial,
    Placement,
    Request,
)

LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
DOMAIN = re.compile(rf"{LABEL}(?:\.{LABEL})+")
# A header that was sent twice arrives joined by a comma, and is no address.
ADDRESS = re.compile(rf"[^@,\s]+@({DOMAIN.pattern})", re.IGNORECASE)


@dataclass
class Config:
    """What the policy says."""

    header: str
    domains: dict[str, str]


def read(text: str) -> Config:
    """Understands the policy's `config`, or raises what is wrong with it."""
    written = json.loads(text)
    unknown = written.keys() - {"header", "domains"}
    if unknown:
        raise Err(f"config: unknown field `{min(unknown)}`, expected `header` and `domains`")
    domains = written.get("domains")
    if not isinstance(domains, dict):
        raise Err("config field `domains` must be a map of domains to tenants")
    for domain in domains:
        if not DOMAIN.fullmatch(domain):
            raise Err(f"config field `domains`: `{domain}` must be a domain in lower case, such as `acme.com`")
    return Config(written.get("header", "X-User-Email"), domains)


def tenant_of(domain: str, domains: dict[str, str]) -> str | None:
    """The tenant of the longest known domain that `domain` is or ends in."""
    while domain:
        if domain in domains:
            return domains[domain]
        _, _, domain = domain.partition(".")
    return None


config = Config("X-User-Email", {})


class WitWorld(wit_world.WitWorld):
    """The functions that the contract asks for."""

    def configure(self, text: str) -> None:
        global config
        config = read(text)

    def resolve(self, request: Request) -> Decision:
        email = request.header(config.header)
        if email is None:
            return Decision_Next()
        address = ADDRESS.fullmatch(email.strip())
        if address is None:
            return Decision_Deny(Denial(400, "bad-email", "the user's e-mail address is not one address"))
        tenant = tenant_of(address[1].lower(), config.domains)
        if tenant is None:
            return Decision_Next()
        return Decision_Place(Placement(tenant, headers=[], upstream=None, reason="e-mail domain"))

"""Requests to an Engine by the environment, as the docker CLI reads it: the user's own headers, and a proxy."""

from __future__ import annotations

import csv
import ipaddress
from typing import Final

from yarl import URL

from aiodocker_images.errors import ConfigError, shown

from .config import Environment, is_header, is_reserved

__all__ = ["custom_headers", "proxy_for"]

_VARIABLE: Final = "DOCKER_CUSTOM_HEADERS"


def custom_headers(environ: Environment) -> dict[str, str]:
    """Return the headers of `DOCKER_CUSTOM_HEADERS`, "name=value" pairs as in a line of CSV; empty for none.

    Those that say how a request is to be read, and those of our own, are left out. Raises `ConfigError`, which shows no
    value: one may be a token.
    """
    text = environ.get(_VARIABLE) or ""
    if not text:
        return {}
    try:
        fields = [field for line in csv.reader([text], strict=True) for field in line]
    except csv.Error:
        raise ConfigError(f"{_VARIABLE} is not a list of name=value pairs with commas between") from None
    headers: dict[str, str] = {}
    for field in fields:
        name, equals, value = field.partition("=")
        if not name.strip() or not equals:
            raise ConfigError(f"{_VARIABLE} has a part that is not name=value: {shown(name)}")
        name = name.strip()
        if not is_header(name, value):
            raise ConfigError(f"{_VARIABLE} has what is not a header: {shown(name)}")
        if not is_reserved(name):
            headers[name] = value
    return headers


def proxy_for(url: URL, environ: Environment) -> str | None:
    """Return the proxy for an Engine at `url`; None for none.

    As Go and so the docker CLI choose it: `HTTP_PROXY`, or `HTTPS_PROXY` with TLS, unless `NO_PROXY` names the host, or
    it is this machine. The names in lower case do as well.
    """
    name = "HTTPS_PROXY" if url.scheme == "https" else "HTTP_PROXY"
    proxy = environ.get(name) or environ.get(name.lower())
    if not proxy or _goes_directly(url, environ.get("NO_PROXY") or environ.get("no_proxy") or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _goes_directly(url: URL, exceptions: str) -> bool:
    host = (url.host or "").lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        address = None
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for exception in (each.strip().lower() for each in exceptions.split(",")):
        if exception == "*" or (exception and _names(exception, host, url.port, address)):
            return True
    return False


def _names(
    exception: str, host: str, port: int | None, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
) -> bool:
    """Whether one part of `NO_PROXY` names a host: an address, a network, or a domain with all below it."""
    if address is not None and "/" in exception:
        try:
            return address in ipaddress.ip_network(exception, strict=False)
        except ValueError:
            return False
    name, colon, of_port = exception.rpartition(":")
    if colon and of_port.isdecimal() and ":" not in name.strip("[]"):
        if str(port) != of_port:
            return False
        exception = name
    exception = exception.strip("[]")
    if address is not None:
        return exception == host
    domain = exception.removeprefix("*").removeprefix(".")
    return host.endswith(f".{domain}") or (host == domain and not exception.startswith((".", "*.")))

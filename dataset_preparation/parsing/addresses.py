"""Addresses: normalised, their parts, and the photograph that they lead to."""
import re
from urllib.parse import unquote, urljoin, urlsplit

import idna
from requests.utils import requote_uri

# Site whose photographs other sources list, too: pattern of an address, its group the name there
IDENTITIES = {
    "inaturalist": r"https?://(?:static\.inaturalist\.org|inaturalist-open-data\.s3[\w.-]*"
                   r"\.amazonaws\.com)/photos/(\d+)/",
    "commons": r"https?://upload\.wikimedia\.org/wikipedia/commons/(?:thumb/)?\w/\w\w/([^/?]+)"}
LONGEST = 8000  # characters, RFC 9110, 4.1: what every server should take at least
SIZE = re.compile(r"/(?:square|thumb|small|medium|large|original)\.(\w+)(?:\?.*)?$")


def clean_address(address, base="https://"):
    """Return an address in normal form: absolute, quoted, no fragment; "" if it is invalid.

    One longer than LONGEST is invalid: servers refuse it, or it is a picture written as text.
    """
    try:
        parts = urlsplit(with_ascii_host(urljoin(base, address.strip())))
        cleaned = requote_uri(parts._replace(fragment="").geturl())
    except ValueError:
        return ""
    return cleaned if len(cleaned) <= LONGEST else ""


def with_ascii_host(address):
    """Return an address with its host name in ASCII form (https://www.unicode.org/reports/tr46/)."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    if parts.netloc.isascii() and "%" not in parts.netloc:
        return address
    return parts._replace(netloc=ascii_host(parts.netloc)).geturl()


def ascii_host(netloc):
    """Return the host part of an address with its name in ASCII form."""
    user, at, host = netloc.rpartition("@")
    name, colon, port = host.partition(":")
    name = unquote(name)
    try:
        return f"{user}{at}{idna.encode(name, uts46=True).decode()}{colon}{port}"
    except idna.IDNAError:  # such as a name of emoji, which browsers accept
        labels = [label if label.isascii() else f"xn--{label.encode('punycode').decode()}"
                  for label in name.lower().split(".")]
        return f"{user}{at}{'.'.join(labels)}{colon}{port}"


def host_of(address):
    """Return the host and port of an address in lower case: the unit of delays and limits."""
    return urlsplit(address).netloc.rpartition("@")[2].lower()


def is_downgrade(address, target):
    """Return whether a redirect leads from https to http, which can be changed on the way."""
    return urlsplit(address).scheme == "https" and urlsplit(target).scheme == "http"


# ---- photographs ----

def identity(address):
    """Return what names the photograph at an address: of all sizes, from all sources the same."""
    for name, pattern in IDENTITIES.items():
        if match := re.match(pattern, address):
            return f"{name}:{match[1]}"
    return address


def at_size(address, size):
    """Return the address of an iNaturalist photograph at a size, without its time stamp."""
    return SIZE.sub(rf"/{size}.\1", address)


def fitting_size(size, width, height):
    """Return the size to ask for: "large" instead of "medium" for a picture long and narrow.

    At 500 pixels its shorter side is below cleaning's MIN_SIDE where it is longer than 1.95 : 1.
    """
    known = isinstance(width, int) and isinstance(height, int) and min(width, height) > 0
    narrow = known and 500 * min(width, height) < 256 * max(width, height)
    return "large" if size == "medium" and narrow else size

"""One photograph has one address, whichever source has found it."""
import re

# Address of a photograph that several sources pass on -> its number there
INATURALIST = re.compile(
    r"https?://(?:static\.inaturalist\.org|inaturalist-open-data\.s3[\w.-]*\.amazonaws\.com)"
    r"/photos/(\d+)/")
COMMONS = re.compile(r"https?://upload\.wikimedia\.org/wikipedia/commons/(?:thumb/)?\w/\w\w/([^/?]+)")
IDENTITIES = (("inaturalist", INATURALIST), ("commons", COMMONS))
SIZE = re.compile(r"/(?:square|thumb|small|medium|large|original)\.(\w+)(?:\?.*)?$")


def identity(address):
    """Return what names the photograph at an address: of all sizes, from all sources the same."""
    for name, pattern in IDENTITIES:
        if match := pattern.match(address):
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

"""What sources with a REST API share: polite requests, and which photographs are wanted."""
import json
import time
from typing import NamedTuple

import requests

from dataset_preparation.parsing.parsing_utils import SearchFailed
from dataset_preparation.parsing.safe_download import Failed, Refused, retry
from utils import InputError

ATTEMPTS = 4  # per request
AREAS = {"crimea": (32.4, 44.3, 36.7, 46.3)}  # west, south, east, north, degrees


class Options(NamedTuple):
    """What is wanted of every REST API, and how often it may be requested."""

    area: tuple  # west, south, east, north in degrees; None = the whole world
    licenses: tuple
    kingdoms: tuple  # that a name may belong to
    per_observation: int  # photographs of one plant, 0 = all
    delay: float  # seconds between two requests


def build_options(s):
    """Return the `Options` of the settings."""
    return Options(read_area(s.area), s.licenses, s.kingdoms, s.photos_per_observation, s.api_delay)


def read_area(text):
    """Return (west, south, east, north) in degrees of a named area or four numbers, None for ""."""
    if not text:
        return None
    try:
        west, south, east, north = AREAS.get(text.lower()) or map(float, text.split(","))
    except ValueError:
        west, south, east, north = 0, 0, 0, 0
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise InputError(f'AREA is {text!r}; give "{", ".join(AREAS)}" or "west,south,east,north" '
                         "in degrees")
    return west, south, east, north


class RestApi:
    """A source with JSON responses.

    `filters` are parameters of every request; `terms` (see `parsing.SOURCES`) are these and what is
    selected here.
    """

    similar = None  # no search by image

    def __init__(self, web, url, filters, options):
        self.web, self.url, self.filters, self.options = web, url.rstrip("/"), filters, options
        self.terms = {**filters, "license": ",".join(options.licenses),
                      "kingdom": ",".join(options.kingdoms), "each": options.per_observation}
        self.last_request, self.note = 0.0, ""  # time.monotonic()

    def close(self):
        """Nothing is open."""

    def get(self, path, **params):
        """Return the JSON response of a path, after retries; raises SearchFailed."""
        address = requests.Request("GET", f"{self.url}/{path}", params=params).prepare().url
        try:
            return json.loads(retry(lambda: self._fetch(address), ATTEMPTS))
        except (Failed, Refused, ValueError) as error:  # ValueError: not JSON
            raise SearchFailed(f"{error} at {address}") from None

    def _fetch(self, address):
        """Return the body of an address, at least the delay after the last request."""
        time.sleep(max(0.0, self.last_request + self.options.delay - time.monotonic()))
        self.last_request = time.monotonic()
        return self.web.fetch(address)

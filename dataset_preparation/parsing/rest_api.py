"""What sources with a REST API share: polite requests, and which photographs are wanted."""
import json
import time
from typing import NamedTuple

import requests

from dataset_preparation.licenses import is_allowed, read_license
from dataset_preparation.parsing.safe_download import (
    Failed,
    HostUnavailable,
    Patience,
    Refused,
    retry,
)
from dataset_preparation.parsing.sources import (
    SearchFailed,
    SiteFailed,
    Source,
    SourceStopped,
    dig,
    text_of,
)
from utils import InputError

ATTEMPTS = 4  # per request
# usual megabytes of a photograph, of 240, 500, 1024 and 2048 pixels on the longer side
PHOTO_MB = {"small": 0.03, "medium": 0.15, "large": 0.5, "original": 2.0}
AREAS = {"crimea": (32.4, 44.3, 36.7, 46.3)}  # west, south, east, north, degrees


class Options(NamedTuple):
    """What is wanted of every REST API, and how often it may be requested."""

    area: tuple  # west, south, east, north in degrees; None = the whole world
    licenses: tuple
    kingdoms: tuple  # that a name may belong to
    per_observation: int  # photographs of one plant, 0 = all
    delay: float  # seconds between two requests
    size: str = "medium"  # of iNaturalist's sizes
    cultivated: str = "no"  # cultivated plants: no, too, only
    phenology: str = ""  # of the plant: flowers, fruits, buds, none; "" = any
    spread_pages: int = 10  # pages read besides the first to choose from, 0 = take what comes first
    seed: int = 0  # of that choice
    folder: object = ""  # for the pages read


def build_options(s):
    """Return the `Options` of the settings."""
    return Options(read_area(s.area), s.licenses, s.kingdoms, s.photos_per_observation, s.api_delay,
                   s.photo_size, s.cultivated, s.phenology, s.spread_pages, s.spread_seed,
                   s.collected_dir)


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


class RestApi(Source):
    """A source with JSON responses.

    `filters` are parameters of every request; `terms` (see `parsing.SOURCES`) are these and what is
    selected here.
    """

    per_page = 100  # records

    def __init__(self, web, url, filters, options):
        self.web, self.url, self.filters, self.options = web, url.rstrip("/"), filters, options
        self.patience = Patience(web.network.patience if web else 0)
        self.terms = {**filters, "license": ",".join(options.licenses),
                      "kingdom": ",".join(options.kingdoms), "each": options.per_observation,
                      "size": options.size}
        self.last_request = 0.0  # time.monotonic()
        self.page_seconds = 1.0 + options.delay
        self.usual_mb = PHOTO_MB[options.size]

    def get(self, path, base="", /, **params):
        """Return the JSON response of a path, after retries; raises SearchFailed.

        `base` is where the path begins, the source's own address where it is "".
        """
        address = requests.Request("GET", f"{base or self.url}/{path}", params=params).prepare().url
        try:
            body = retry(lambda: self._fetch(address), ATTEMPTS, patience=self.patience)
        except HostUnavailable as error:
            raise SourceStopped(f"{error} at {address}") from None
        except Failed as error:
            raise SiteFailed(f"{error} at {address}") from None
        except Refused as error:
            raise SearchFailed(f"{error} at {address}") from None
        try:
            return json.loads(body)
        except ValueError:
            raise SearchFailed(f"no JSON but {own_words(body)!r} at {address}") from None

    def records(self, path, **params):
        """Return (list of records under "results", whole response) of a path."""
        response = self.get(path, **params)
        found = dig(response, "results")
        if not isinstance(found, list):
            raise SearchFailed(f"no list of results at {path} but "
                               f"{own_words(json.dumps(response))!r}")
        return found, response

    def allowed_license(self, text, passed_over):
        """Return the licence that a text means if it is wanted, else "", and count the reason."""
        code = read_license(text)
        if is_allowed(code, self.options.licenses):
            return code
        missing = "licence not understood" if text_of(text).strip() else "no licence"
        passed_over[f"licence not wanted: {code}" if code else missing] += 1
        return ""

    def first_photos(self, photos, passed_over):
        """Return as many photographs of one plant as are wanted, and count the others."""
        most = self.options.per_observation or len(photos)
        if len(photos) > most:
            passed_over["further photographs of a plant"] += len(photos) - most
        return photos[:most]

    def _fetch(self, address):
        """Return the body of an address, at least the delay after the last request."""
        time.sleep(max(0.0, self.last_request + self.options.delay - time.monotonic()))
        self.last_request = time.monotonic()
        return self.web.fetch(address)


def own_words(body):
    """Return what a server says in a response that is not the expected one, 200 characters."""
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    words = dig(said, "error") or dig(said, "message") or body
    words = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
    return " ".join(words.split())[:200]

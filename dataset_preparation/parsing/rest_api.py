"""What sources with an open interface share: polite questions, and settings that say which photographs are wanted."""
import json
import time

import requests

import config
from dataset_preparation.parsing.parsing_utils import SearchFailed, require_known
from dataset_preparation.parsing.safe_download import LONGEST_WAIT, Failed, Refused
from utils import InputError

ATTEMPTS = 4  # per question
AREAS = {"crimea": (32.4, 44.3, 36.7, 46.3)}  # west, south, east, north, degrees
LICENSES = ("cc0", "pd", "cc-by", "cc-by-sa", "cc-by-nc", "cc-by-nc-sa", "cc-by-nd", "cc-by-nc-nd")


def build_options():
    """Return the options of the settings that every open interface has."""
    return {"area": read_area(config.AREA), "licenses": config.LICENSES, "kingdoms": config.KINGDOMS,
            "per_observation": config.PHOTOS_PER_OBSERVATION, "delay": config.API_DELAY}


def read_area(text):
    """Return (west, south, east, north) in degrees of an area's name or of four numbers, None for ""."""
    if not text:
        return None
    try:
        west, south, east, north = AREAS.get(text.lower()) or map(float, text.split(","))
    except ValueError:
        west, south, east, north = 0, 0, 0, 0
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise InputError(f'AREA is {text!r}; give "{", ".join(AREAS)}" or "west,south,east,north" in degrees')
    return west, south, east, north


class OpenInterface:
    """A source with JSON answers, asked no sooner than `delay` seconds after the last question.

    `filters` are parameters of every question; `terms` (see `parsing.SOURCES`) says these and what is sorted out here.
    """

    similar = None  # no search by image

    def __init__(self, web, url, filters, licenses, kingdoms, per_observation, delay):
        require_known("LICENSES", licenses, LICENSES)
        self.web, self.url, self.filters, self.delay = web, url.rstrip("/"), filters, delay
        self.licenses, self.kingdoms, self.per_observation = licenses, kingdoms, per_observation
        self.terms = {**filters, "license": ",".join(licenses), "kingdom": ",".join(kingdoms), "each": per_observation}
        self.asked, self.note = 0.0, ""

    def close(self):
        """Nothing is open."""

    def ask(self, what, **params):
        """Return the JSON answer to a question, asked again after a pause when it fails; raises SearchFailed."""
        address = requests.Request("GET", f"{self.url}/{what}", params=params).prepare().url
        for attempt in range(1, ATTEMPTS + 1):
            time.sleep(max(0.0, self.asked + self.delay - time.monotonic()))
            self.asked = time.monotonic()
            try:
                return json.loads(self.web.fetch(address))
            except Failed as error:
                if attempt == ATTEMPTS or error.wait > LONGEST_WAIT:
                    raise SearchFailed(f"{error} at {address}") from None
                self.asked = time.monotonic() + max(error.wait, 2.0 ** attempt / 2)
            except (Refused, ValueError) as error:
                raise SearchFailed(f"{error} at {address}") from None

"""A local server that plays Yandex Images, iNaturalist and GBIF, and serves photographs.

Written from the documented fields; no response of a live site is copied. What a `World` holds is a
function of its numbers, so a test can state what must be collected.
"""
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import numpy as np
from PIL import Image

from tests.collecting_yandex import captcha_page, fragment, is_past_the_end, search_page

HTML = {"Content-Type": "text/html; charset=utf-8"}


def jpeg(name, width=64, height=48):
    """Return a small JPEG whose content is a function of its name."""
    rng, file = np.random.default_rng(list(name.encode())), io.BytesIO()
    image = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
    image.resize((width, height), Image.Resampling.NEAREST).save(file, "JPEG", quality=85)
    return file.getvalue()


class World:
    """What the server holds and how it behaves; attributes may change while it runs."""

    def __init__(self):
        self.by_name = 30  # results per name
        self.by_image = 10  # results per search for similar photographs
        self.unknown = set()  # names without results
        self.markup = "state"  # Yandex's: state, tiles, broken, filling
        self.fills = True  # whether a page of the markup "filling" is filled in the end
        self.says_last = False  # whether the last page says so; the one after it is HTTP 404
        self.expired = False  # whether an empty overview says that it could not load the picture
        self.no_similar = set()  # front doors that show no similar photographs
        self.leads = {}  # front door -> address it redirects to, without the search
        self.links = True  # whether today's tiles name the original
        self.turns_pages = True  # whether `p` works; otherwise by scrolling and pressing "more"
        self.captcha_after = None  # responses of Yandex before it shows a captcha
        self.captcha_solves = False  # whether it solves itself after a second, as a person would
        self.consent = False  # whether a banner covers the page until it is closed
        self.failing = 0  # responses of Yandex that are HTTP 503
        self.originals = True  # whether a result's first address works; otherwise a copy does
        self.responses = 0
        self.taxa = {}  # iNaturalist: name -> taxa
        self.matches = {}  # GBIF: (name, kingdom) -> match
        self.observations, self.occurrences = [], []
        self.pages = {}  # path -> (status, headers, body): anything else


class CollectingServer:
    """The server of a `World` in a thread; `log` holds (time, path with query) per request."""

    def __init__(self, world=None):
        self.world, self.log, self.lock = world or World(), [], threading.Lock()
        handler = type("Handler", (Handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # clients that are killed hang up
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def requested(self, start):
        """Return the logged paths that begin with a text."""
        with self.lock:
            return [path for _, path in self.log if path.startswith(start)]

    def photo(self, name):
        """Return the address of a photograph."""
        return f"{self.url}/photo/{quote(name)}.jpg"


class Handler(BaseHTTPRequestHandler):
    """Serves one connection."""

    protocol_version = "HTTP/1.1"
    owner = None

    def log_message(self, *_):
        """Print nothing."""

    def do_GET(self):
        """Respond by path."""
        owner, world = self.owner, self.owner.world
        with owner.lock:
            owner.log.append((time.time(), self.path))
        parts = urlsplit(self.path)
        several = ("basisOfRecord", "month") if parts.path.startswith("/gbif") else ()
        params = {key: values if key in several else values[0]
                  for key, values in parse_qs(parts.query).items()}
        if parts.path in world.pages:
            self.send(*world.pages[parts.path])
        elif parts.path.startswith("/photo/"):
            self.send(200, {"Content-Type": "image/jpeg"}, jpeg(parts.path))
        elif parts.path.endswith("/images/search"):  # any front door
            self.yandex({"door": parts.path, **params})
        elif parts.path == "/showcaptcha":
            self.send(200, HTML, captcha_page(world, params))
        elif parts.path == "/checkcaptcha":
            world.captcha_after = None
            self.send(302, {"Location": params["retpath"]}, b"")
        elif parts.path == "/inat/taxa":
            self.send_json({"results": world.taxa.get(params["q"], [])})
        elif parts.path == "/inat/observations":
            self.send_json(observations(world, params))
        elif parts.path == "/gbif/species/match":
            nothing = {"diagnostics": {"matchType": "NONE", "confidence": 100}, "synonym": False}
            self.send_json(world.matches.get((params["scientificName"], params["kingdom"]),
                                             nothing))
        elif parts.path == "/gbif/occurrence/search":
            self.send_json(occurrences(world, params))
        else:
            self.send(404, {}, b"nothing here")

    def send(self, status, headers, body):
        """Send a response with its length."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, value):
        """Send a JSON response."""
        self.send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def yandex(self, params):
        """Send a page of Yandex Images."""
        world, owner = self.owner.world, self.owner
        with owner.lock:
            world.responses += 1
            failing, world.failing = world.failing, max(0, world.failing - 1)
            captcha = (world.captcha_after is not None
                       and world.responses > world.captcha_after)
        if captcha:
            self.send(302, {"Location": f"/showcaptcha?{urlencode({'retpath': self.path})}",
                            "x-yandex-captcha": "captcha"}, b"")
        elif failing:
            self.send(503, {}, b"try later")
        elif params["door"] in world.leads:
            self.send(302, {"Location": world.leads[params["door"]]}, b"")
        elif is_past_the_end(owner, params):
            self.send(404, HTML, b"<html><body>nothing here</body></html>")
        elif "fragment" in params:
            self.send(200, HTML, fragment(owner, params).encode())
        else:
            consented = "consent=1" in self.headers.get("Cookie", "")
            self.send(200, HTML, search_page(owner, params, consented).encode())


# ---- iNaturalist and GBIF ----

def observations(world, params):
    """Return a page of observations above an id, as `GET /v1/observations` does."""
    licenses = params["photo_license"].split(",")
    wanted = [record for record in world.observations
              if record["taxon"]["id"] == int(params["taxon_id"])
              and record["quality_grade"] == params["quality_grade"]
              and any(photo["license_code"] in licenses for photo in record["photos"])]
    if "swlng" in params:
        west, south, east, north = (float(params[name])
                                    for name in ("swlng", "swlat", "nelng", "nelat"))
        places = {record["id"]: record["geojson"]["coordinates"] for record in wanted}
        wanted = [record for record in wanted if west <= places[record["id"]][0] <= east
                  and south <= places[record["id"]][1] <= north]
    below = float(params.get("id_below", "inf"))
    months = [int(month) for month in params["month"].split(",")] if "month" in params else None
    wanted = [record for record in wanted if int(params["id_above"]) < record["id"] < below
              and (not months or int(record["observed_on"][5:7]) in months)]
    wanted.sort(key=lambda record: record["id"], reverse=params["order"] == "desc")
    return {"total_results": len(wanted), "page": 1, "per_page": int(params["per_page"]),
            "results": wanted[:int(params["per_page"])]}


NAMES = ("Ada Fern", "Ben Reed", "Anna Botanist", "Cleo Moss", "Dan Sedge", "Eva Rush", "Fay Hop")


def observation(server, number, taxon, licenses=("cc-by-nc",), place=(34.0, 45.0), **more):
    """Return an observation with one photograph per licence (None: all rights reserved)."""
    photos = [{"id": 10 * number + index, "license_code": code, "flags": [],
               "url": f"{server.url}/photo/{number}-{index}/square.jpg?1598551272",
               "attribution": "(c) someone, some rights reserved",
               "original_dimensions": {"width": 64, "height": 48}}
              for index, code in enumerate(licenses)]
    return {"quality_grade": "research", "id": number, "license_code": "cc-by", "captive": False,
            "taxon": {"id": taxon["id"], "name": taxon["name"], "rank": taxon["rank"]},
            "uri": f"https://www.inaturalist.org/observations/{number}", "obscured": False,
            "geojson": {"type": "Point", "coordinates": list(place)},
            "user": {"id": number % 7, "login": f"user{number % 7}",
                     "name": None if number % 2 else NAMES[number % 7]},
            "observed_on": "2020-05-17", "photos": photos, "observation_photos": [], **more}


def occurrences(world, params):
    """Return a page of occurrences, as `GET /v1/occurrence/search` does."""
    wanted = [record for record in world.occurrences
              if str(record["taxonKey"]) == params["taxonKey"]
              and record["basisOfRecord"] in params["basisOfRecord"]]
    if "month" in params:
        wanted = [record for record in wanted
                  if int(record["eventDate"][5:7]) in map(int, params["month"])]
    offset, limit = int(params["offset"]), int(params["limit"])
    assert offset + limit <= 100_000, "GBIF gives no more"
    return {"offset": offset, "limit": limit, "endOfRecords": offset + limit >= len(wanted),
            "count": len(wanted), "results": wanted[offset:offset + limit]}


def occurrence(server, number, key, license_text, basis="HUMAN_OBSERVATION", **more):
    """Return an occurrence with one photograph."""
    media = {"type": "StillImage", "format": "image/jpeg",
             "identifier": server.photo(f"gbif{number}"),
             "references": f"https://www.inaturalist.org/photos/{number}",
             "creator": "B. Collector", "publisher": "iNaturalist", "rightsHolder": "B. Collector"}
    if license_text:
        media["license"] = license_text
    return {"key": number, "datasetKey": "50c9509d-22c7-4a22-a47d-8c48425ef4a7", "taxonKey": key,
            "basisOfRecord": basis,
            "license": "http://creativecommons.org/licenses/by/4.0/legalcode",
            "species": "Rosa canina", "scientificName": "Rosa canina L.", "media": [media], **more}

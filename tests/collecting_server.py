"""A local server that speaks the protocols of Yandex Images, iNaturalist and GBIF, and serves photographs.

Written from the documented fields; no answer of a live site is copied. What a `World` holds is a function of its
numbers, so a test can say what must be collected.
"""
import html
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import numpy as np
from PIL import Image

PER_PAGE = 30  # entities on a page of Yandex
THUMBS = 40  # similar pictures on its overview


def jpeg(name, width=64, height=48):
    """Return a small JPEG whose content is a function of its name."""
    colours = np.random.default_rng(list(name.encode())).integers(0, 256, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(colours).resize((width, height), Image.Resampling.NEAREST).save(file, "JPEG", quality=85)
    return file.getvalue()


class World:
    """What the server holds and how it behaves; change the attributes before or while it runs."""

    def __init__(self):
        self.by_name = 30  # results per name
        self.by_image = 10  # results per search for similar ones
        self.unknown = set()  # names nobody knows
        self.markup = "state"  # Yandex's: state, tiles, legacy, broken
        self.links = True  # whether today's tiles name the original
        self.turns_pages = True  # whether `p` works; otherwise one scrolls and presses "more"
        self.captcha_after = None  # answers of Yandex before it asks for a captcha
        self.captcha_solves = False  # whether the captcha page solves itself after a second, as a person would
        self.consent = False  # whether a banner covers the page until it is answered
        self.failing = 0  # answers of Yandex that are HTTP 503
        self.originals = True  # whether a result's first address is alive; otherwise one of its copies is
        self.answers = 0
        self.taxa = {}  # iNaturalist: name -> taxon
        self.matches = {}  # GBIF: (name, kingdom) -> match
        self.observations, self.occurrences = [], []
        self.pages = {}  # path -> (status, headers, body): anything else


class CollectingServer:
    """The server of a `World` in a thread; `log` holds (time, path with query) of every request."""

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

    def asked(self, start):
        """Return the logged paths that begin so."""
        with self.lock:
            return [path for _, path in self.log if path.startswith(start)]

    def photo(self, name):
        """Return the address of a photograph."""
        return f"{self.url}/photo/{quote(name)}.jpg"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    owner = None

    def log_message(self, *_):
        """Keep quiet."""

    def do_GET(self):
        """Answer by path."""
        owner, world = self.owner, self.owner.world
        with owner.lock:
            owner.log.append((time.time(), self.path))
        parts = urlsplit(self.path)
        params = {key: values if key == "basisOfRecord" else values[0]
                  for key, values in parse_qs(parts.query).items()}
        if parts.path in world.pages:
            self.send(*world.pages[parts.path])
        elif parts.path.startswith("/photo/"):
            self.send(200, {"Content-Type": "image/jpeg"}, jpeg(parts.path))
        elif parts.path == "/images/search":
            self.yandex(params)
        elif parts.path == "/showcaptcha":
            self.send(200, {"Content-Type": "text/html; charset=utf-8"}, captcha_page(world, params))
        elif parts.path == "/checkcaptcha":
            world.captcha_after = None
            self.send(302, {"Location": params["retpath"]}, b"")
        elif parts.path == "/inat/taxa":
            self.send_json({"results": world.taxa.get(params["q"], [])})
        elif parts.path == "/inat/observations":
            self.send_json(observations(world, params))
        elif parts.path == "/gbif/species/match":
            nothing = {"matchType": "NONE", "confidence": 100}
            self.send_json(world.matches.get((params["name"], params["kingdom"]), nothing))
        elif parts.path == "/gbif/occurrence/search":
            self.send_json(occurrences(world, params))
        else:
            self.send(404, {}, b"nothing here")

    def send(self, status, headers, body):
        """Send an answer with its length."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, value):
        """Send a JSON answer."""
        self.send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def yandex(self, params):
        """Answer a page of Yandex Images."""
        world, owner = self.owner.world, self.owner
        with owner.lock:
            world.answers += 1
            failing, world.failing = world.failing, max(0, world.failing - 1)
            captcha = world.captcha_after is not None and world.answers > world.captcha_after
        if captcha:
            self.send(302, {"Location": f"/showcaptcha?{urlencode({'retpath': self.path})}",
                            "x-yandex-captcha": "captcha"}, b"")
        elif failing:
            self.send(503, {}, b"try later")
        elif "fragment" in params:
            self.send(200, {"Content-Type": "text/html; charset=utf-8"}, fragment(owner, params).encode())
        else:
            text = search_page(owner, params, answered="consent=1" in self.headers.get("Cookie", ""))
            self.send(200, {"Content-Type": "text/html; charset=utf-8"}, text.encode())


# ---- Yandex ----

def results_of(owner, params):
    """Return (names of all results, first, names on this page) of a search."""
    world = owner.world
    if "rpt" in params:
        picture = params["url"].rpartition("/")[2].removesuffix(".jpg")
        names = [f"{picture}~{number}" for number in range(world.by_image if "~" not in picture else 0)]
    else:
        text = params["text"].lower().replace(" ", "_")
        names = [] if params["text"] in world.unknown else [f"{text}-{number}" for number in range(world.by_name)]
    first = int(params.get("p", 0)) * PER_PAGE if world.turns_pages else 0
    return names, first, names[first:first + PER_PAGE]


def entity(owner, name, position):
    """Return one entity of the state, with the fields of today's pages in their order."""
    original, copy = owner.photo(name), owner.photo(name) + "?copy"
    if not owner.world.originals:
        original = f"{owner.url}/gone/{quote(name)}.jpg"
    title = f'{name} <b>photo</b> &quot;in flower&quot; {{"a": false}}}}'
    snippet = {"title": title, "text": "Some <b>words</b> &mdash; and more", "url": f"https://plants.example/{name}",
               "domain": "plants.example", "hasTitle": True}
    thumb = f"//avatars.mds.yandex.net/i?id={name}-images-thumbs&n=13"
    return {"id": f"id{position}", "pos": position, "origUrl": original, "origWidth": 64, "origHeight": 48,
            "image": thumb, "alt": name, "freshnessCounter": "", "gifLabel": False,
            "url": f"/images/search?{urlencode({'pos': position, 'img_url': original, 'text': 'x', 'rpt': 'simage'})}",
            "snippet": snippet,
            "viewerData": {"dups": [{"url": copy, "w": 48, "h": 36, "fileSizeInBytes": 900}],
                           "preview": [{"url": f"https://avatars.mds.yandex.net/i?id={name}_l-images-thumbs&n=13",
                                        "w": 640, "h": 480, "fileSizeInBytes": 9000}],
                           "thumb": {"url": thumb, "size": {"width": 320, "height": 240}}, "img_href": original}}


def tile(owner, name, position):
    """Return one tile of today's markup."""
    one = entity(owner, name, position)
    link = one["url"] if owner.world.links else f"/images/viewer/{position}"
    return (f'<div class="SerpItem JustifierRowLayout-Item" id="{one["id"]}"><div class="SerpItem-Thumb">'
            f'<a class="Link ImagesContentImage-Cover" href="{html.escape(link)}">'
            f'<img class="ImagesContentImage-Image" src="{html.escape(one["image"])}" alt="{html.escape(name)}"></a>'
            "</div></div>")


def legacy_tile(owner, name, position):
    """Return one tile of the markup before 2023, Yandex's copy first and the true file in `origin`."""
    one = entity(owner, name, position)
    item = {"reqid": "1", "freshness": "normal",
            "preview": [{"url": f"https://avatars.mds.yandex.net/i?id={name}_l", "w": 64, "h": 48, "isMixedImage": True,
                         "origin": {"url": one["origUrl"], "w": 64, "h": 48}}],
            "dups": one["viewerData"]["dups"], "thumb": one["viewerData"]["thumb"], "snippet": one["snippet"],
            "detail_url": one["url"], "img_href": one["origUrl"], "useProxy": False, "pos": position, "id": one["id"],
            "rimId": "0", "isMarketIncut": False, "counterPath": "thumb/normal"}
    bem = html.escape(json.dumps({"serp-item": item}))
    return f'<div class="serp-item serp-item_type_search justifier__item i-bem" data-bem="{bem}"></div>'


def fragment(owner, params):
    """Return the tiles a scrolled page asks for."""
    names, _, _ = results_of(owner, params)
    start = int(params["fragment"])
    drawn = legacy_tile if owner.world.markup == "legacy" else tile
    return "".join(drawn(owner, name, start + place) for place, name in enumerate(names[start:start + PER_PAGE]))


def state_element(state, name):
    """Return an element that carries a state, as the React pages do."""
    return (f'<div class="Root" id="{name}" data-state="{html.escape(json.dumps({"initialState": state}))}"></div>')


def search_page(owner, params, answered):
    """Return a page of results in the world's markup."""
    world = owner.world
    names, first, shown = results_of(owner, params)
    parts = ['<div data-state="not JSON" class="Root"></div>',
             state_element({"location": "/images/search/", "form": {"text": "serp"}}, "HeaderForm")]
    if world.markup == "broken":
        parts.append('<main class="NewList"><section data-v2="1">pictures</section></main>')
    elif "rpt" in params and params.get("cbir_page") != "similar":
        parts.append(overview(owner, names))
    elif world.markup == "state":
        entities = {one["id"]: one for one in (entity(owner, name, first + place) for place, name in
                                               reversed(list(enumerate(shown))))}
        serp = {"items": {"entities": entities, "keys": list(entities)}, "loadNextState": "idle", "pending": False}
        parts.append(state_element({"location": "/images/search/", "serpList": serp}, "ImagesApp-1"))
    if world.markup in ("state", "tiles") and "rpt" not in params or params.get("cbir_page") == "similar":
        tiles = [tile(owner, name, first + place) for place, name in enumerate(shown)]
        parts.append(f'<div class="SerpList" id="list">{"".join(tiles)}</div>')
    elif world.markup == "legacy" and "rpt" not in params:
        tiles = [legacy_tile(owner, name, first + place) for place, name in enumerate(shown)]
        parts.append(f'<div class="serp-list" id="list">{"".join(tiles)}</div>')
    if not shown and world.markup in ("tiles", "legacy"):
        parts.append('<div class="EmptySearchResults"><div class="EmptySearchResults-Title">nothing</div></div>')
    if not world.turns_pages and len(names) > PER_PAGE:
        parts.append(SCROLLING.replace("ADDRESS", urlencode(params)).replace("TOTAL", str(len(names))))
    if world.consent and not answered:
        parts.append(BANNER)
    return f"<!doctype html><html><head><title>Yandex</title></head><body>{''.join(parts)}</body></html>"


def overview(owner, names):
    """Return the overview of a search by image: up to 40 thumbnails, or an empty skeleton."""
    thumbs = [{"imageUrl": f"//avatars.mds.yandex.net/i?id={name}", "title": name, "width": 64, "height": 48,
               "linkUrl": f"/images/search?{urlencode({'url': 'x', 'img_url': owner.photo(name), 'rpt': 'imageview'})}"}
              for name in names[:THUMBS]]
    links = "".join(f'<a class="Link CbirSimilarList-Thumb" href="{html.escape(one["linkUrl"])}">'
                    f'<img class="CbirSimilarList-ThumbImage" src="{html.escape(one["imageUrl"])}" alt=""></a>'
                    for one in thumbs)
    if owner.world.markup != "state":
        return links or '<div class="EmptySearchResults"></div>'
    state = {"cbirPreview": {"cbirId": "1/a"}, "cbirSites": {"sites": []}, "cbirTags": {"tags": []}}
    return state_element({**state, **({"cbirSimilar": {"thumbs": thumbs}} if thumbs else {})}, "ImagesApp-2") + links


def captcha_page(world, params):
    """Return a captcha page, HTTP 200 as Yandex sends it."""
    solve = "<script>setTimeout(() => document.forms[0].submit(), 1000)</script>" if world.captcha_solves else ""
    return (f'<html><head><title>Are you not a robot?</title></head><body><form method="GET" action="/checkcaptcha">'
            f'<input type="hidden" name="retpath" value="{html.escape(params["retpath"])}">'
            '<div class="CheckboxCaptcha" data-testid="checkbox-captcha"><input type="submit" id="js-button" '
            f'class="CheckboxCaptcha-Button"></div></form>{solve}</body></html>').encode()


BANNER = """<div class="gdpr-popup-v3-main" style="position:fixed;inset:0;background:white;z-index:9">
<button class="gdpr-popup-v3-button gdpr-popup-v3-button_id_mandatory" onclick="document.cookie='consent=1;path=/';
this.parentElement.remove()">Essential only</button></div>"""

# the first scroll brings tiles by itself, then a button must be pressed
SCROLLING = """<div style="height:3000px"></div><div class="FetchListButton"><button hidden id="more"
class="Button2 FetchListButton-Button">Show more</button></div><script>
let count = document.getElementById("list").children.length, busy = false, scrolled = 0;
async function more() {
  if (busy || count >= TOTAL) return;
  busy = true;
  const answer = await fetch("/images/search?ADDRESS&fragment=" + count);
  document.getElementById("list").insertAdjacentHTML("beforeend", await answer.text());
  count = document.getElementById("list").children.length;
  document.getElementById("more").hidden = false;
  busy = false;
}
addEventListener("scroll", () => { if (scrolled++ == 0) more(); });
document.getElementById("more").addEventListener("click", more);
</script>"""


# ---- iNaturalist and GBIF ----

def observations(world, params):
    """Return a page of observations above an id, as `GET /v1/observations` does."""
    wanted = [one for one in world.observations if one["taxon"]["id"] == int(params["taxon_id"])
              and one["quality_grade"] == params["quality_grade"]
              and any(photo["license_code"] in params["photo_license"].split(",") for photo in one["photos"])]
    if "swlng" in params:
        wanted = [one for one in wanted if
                  float(params["swlng"]) <= one["geojson"]["coordinates"][0] <= float(params["nelng"])
                  and float(params["swlat"]) <= one["geojson"]["coordinates"][1] <= float(params["nelat"])]
    wanted = sorted((one for one in wanted if one["id"] > int(params["id_above"])), key=lambda one: one["id"])
    return {"total_results": len(wanted), "page": 1, "per_page": int(params["per_page"]),
            "results": wanted[:int(params["per_page"])]}


def observation(owner, number, taxon, licenses=("cc-by-nc",), place=(34.0, 45.0)):
    """Return an observation with one photograph per licence (None: all rights reserved)."""
    photos = [{"id": 10 * number + place, "license_code": code, "flags": [],
               "url": f"{owner.url}/photo/{number}-{place}/square.jpg?1598551272",
               "attribution": "(c) someone, some rights reserved", "original_dimensions": {"width": 64, "height": 48}}
              for place, code in enumerate(licenses)]
    return {"quality_grade": "research", "id": number, "license_code": "cc-by", "captive": False,
            "taxon": {"id": taxon["id"], "name": taxon["name"], "rank": taxon["rank"]},
            "uri": f"https://www.inaturalist.org/observations/{number}", "obscured": False,
            "geojson": {"type": "Point", "coordinates": list(place)},
            "user": {"id": number % 7, "login": f"user{number % 7}", "name": None if number % 2 else "Anna Botanist"},
            "photos": photos, "observation_photos": []}


def occurrences(world, params):
    """Return a page of occurrences, as `GET /v1/occurrence/search` does."""
    wanted = [one for one in world.occurrences if one["taxonKey"] == int(params["taxonKey"])
              and one["basisOfRecord"] in params["basisOfRecord"]]
    offset, limit = int(params["offset"]), int(params["limit"])
    assert offset + limit <= 100_000, "no answer goes beyond"
    return {"offset": offset, "limit": limit, "endOfRecords": offset + limit >= len(wanted), "count": len(wanted),
            "results": wanted[offset:offset + limit]}


def occurrence(owner, number, key, license_text, basis="HUMAN_OBSERVATION"):
    """Return an occurrence with one photograph."""
    return {"key": number, "datasetKey": "50c9509d-22c7-4a22-a47d-8c48425ef4a7", "taxonKey": key,
            "basisOfRecord": basis, "license": "http://creativecommons.org/licenses/by/4.0/legalcode",
            "species": "Rosa canina", "scientificName": "Rosa canina L.",
            "media": [{"type": "StillImage", "format": "image/jpeg", "identifier": owner.photo(f"gbif{number}"),
                       "references": f"https://www.inaturalist.org/photos/{number}", "creator": "B. Collector",
                       "publisher": "iNaturalist", "rightsHolder": "B. Collector",
                       **({"license": license_text} if license_text else {})}]}

"""Results in the HTML of Yandex Images: its state, else its tiles, else the markup before 2023.

The keys as seen in https://github.com/searxng/searxng (searx/engines/yandex.py),
https://github.com/karust/openserp (yandex/) and https://github.com/kitUIN/PicImageSearch, and in
an overview of similar photographs saved in April 2026; no live page was at hand.
"""
import html
import json
import re
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from dataset_preparation.parsing.addresses import clean_address, host_of
from dataset_preparation.parsing.sources import SearchFailed, read_records

FALLBACKS = 5  # further addresses kept of one photograph


class ChangedMarkup(SearchFailed):
    """A page on which nothing known is found."""


class Content(NamedTuple):
    """What a page says."""

    results: list
    is_last: bool = False  # no page follows
    is_filling: bool = False  # nothing is there yet
    is_expired: bool = False  # the photograph that was asked about could not be loaded
    passed_over: dict = {}  # reason -> number of entries that could not be read


class Page(HTMLParser):
    """What a page's HTML has: states, tiles, legacy tiles; signs of captcha, banner, no results."""

    def __init__(self, text):
        super().__init__()
        self.text, self.states, self.tiles, self.legacy_tiles = text, [], [], []
        self.captcha = self.consent = self.empty = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note one element."""
        attrs = {name: value or "" for name, value in attrs}
        classes, link = attrs.get("class", ""), attrs.get("href", "")
        if "data-state" in attrs:
            self.states += parse_object(attrs["data-state"], "initialState")
        if "data-bem" in attrs and "serp-item" in classes.split():
            self.legacy_tiles += parse_object(attrs["data-bem"], "serp-item")
        is_tile = re.search(r"ContentImage-Cover|CbirSimilar", classes)
        if tag == "a" and "img_url=" in link and is_tile:
            self.tiles.append({"url": link})
        if tag == "img" and self.tiles and re.search(r"ContentImage-Image|ThumbImage", classes):
            self.tiles[-1].setdefault("image", attrs.get("src", ""))
            self.tiles[-1].setdefault("alt", attrs.get("alt", ""))
        self.captcha |= "/checkcaptcha" in attrs.get("action", "") or "form__captcha" in classes
        self.consent |= "gdpr-popup-v3-main" in classes
        self.empty |= "EmptySearchResults" in classes


def parse_object(text, key):
    """Return [the object under `key` of a JSON text], [] where there is none."""
    try:
        value = json.loads(text)[key]
    except (ValueError, KeyError, TypeError):
        return []
    return [value] if isinstance(value, dict) else []


def read_page(page):
    """Return the `Content` of a `Page`; raises ChangedMarkup if it has no form that is known.

    A complete overview of similar photographs says `pending` and `isEmptyPage` as well: what is
    there counts first, these only where nothing is.
    """
    known, passed_over, content = page.empty, {}, Content([])
    for state in page.states:
        serp, similar, preview = (fields(state.get(key)) for key in (
            "serpList", "cbirSimilar", "cbirPreview"))
        entities = ordered_entities(fields(serp.get("items")))
        thumbs = similar.get("thumbs") if isinstance(similar.get("thumbs"), list) else []
        results = (read_records(entities, from_entity, passed_over)
                   or read_records(thumbs, from_thumb, passed_over))
        is_expired = preview.get("imageExpired") is True
        content = Content(results, fields(serp.get("navi")).get("next") == "", not results and (
            serp.get("pending") is True and not (is_expired or preview.get("isCbirEmpty"))),
            is_expired and not results, passed_over)
        if results:
            return content
        known |= "items" in serp or any(key.startswith("cbir") for key in state)
        known &= not (entities or thumbs)  # there are some, but none can be read
    results = (read_records(page.tiles, from_entity, passed_over)
               or read_records(page.legacy_tiles, from_legacy_tile, passed_over))
    if not (results or known):
        raise ChangedMarkup
    return Content(results, passed_over=passed_over) if results else content


def ordered_entities(items):
    """Return the entities of a `serpList` in the order of its `keys`, else of their `pos`."""
    entities, keys = fields(items.get("entities")), items.get("keys")
    if isinstance(keys, list) and keys:
        listed = dict.fromkeys(key for key in map(str, keys) if key in entities)
        return [entities[key] for key in (*listed, *(key for key in entities if key not in listed))]
    return sorted(entities.values(), key=lambda entity: number(fields(entity).get("pos")))


# ---- values of any JSON type ----

def fields(value):
    """Return a value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def number(value):
    """Return a value if it is a number, else 0."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def text(value):
    """Return a value if it is a text, else ""."""
    return value if isinstance(value, str) else ""


# ---- one result ----

def from_entity(entity):
    """Yield the result in an entity of `serpList`, or in a tile, which has some of its fields."""
    viewer = fields(entity.get("viewerData"))
    snippet = fields(entity.get("snippet")) or fields(viewer.get("snippet"))
    size = entity.get("origWidth"), entity.get("origHeight")
    originals = [(entity.get("origUrl"), *size), (original_in(entity.get("url")), *size),
                 *copies_of(viewer), (viewer.get("img_href"), 0, 0)]
    thumbnails = [entity.get("image"), fields(viewer.get("thumb")).get("url")]
    yield make_result(originals, thumbnails, snippet.get("url"),
                      text(snippet.get("title")) or entity.get("alt"))


def from_thumb(thumb):
    """Yield the result in a thumbnail of `cbirSimilar`, whose size is not that of the original."""
    yield make_result([(original_in(thumb.get("linkUrl")), 0, 0)], [thumb.get("imageUrl")], "",
                      thumb.get("title"))


def from_legacy_tile(tile):
    """Yield the result in the JSON of a tile before 2023."""
    snippet = fields(tile.get("snippet"))
    yield make_result([*copies_of(tile), (tile.get("img_href"), 0, 0)],
                      [fields(tile.get("thumb")).get("url")],
                      snippet.get("url"), snippet.get("title"))


def copies_of(item):
    """Return (address, width, height) of every copy in `dups` and `preview`, and its origin."""
    copies = []
    for name in ("dups", "preview"):
        for copy in item.get(name) if isinstance(item.get(name), list) else ():
            for file in (fields(fields(copy).get("origin")), fields(copy)):
                copies.append((file.get("url"), file.get("w"), file.get("h")))
    return copies


def original_in(link):
    """Return the address of the original in a link to the viewer, "" if it has none."""
    return parse_qs(urlsplit(text(link)).query).get("img_url", [""])[0]


def is_cached(address):
    """Return whether an address is Yandex's own copy of a photograph."""
    return bool(re.search(r"(^|\.)(yandex\.[a-z.]+|yastatic\.net)(:\d+)?$", host_of(address)))


def make_result(originals, thumbnails, page, title):
    """Return a result: originals before Yandex's copies before thumbnails, larger ones first.

    `originals` are (address, width, height); sizes are claims, 0 where there is none. Raises
    LookupError if no address is usable.
    """
    files = [(clean_address(text(address)), number(width), number(height))
             for address, width, height in originals if text(address)]
    files.sort(key=lambda file: (is_cached(file[0]), -file[1] * file[2]))
    files += [(clean_address(address), 0, 0) for address in filter(None, map(text, thumbnails))]
    sizes = {}  # address -> (width, height), best address first
    for address, width, height in files:
        if host_of(address):
            sizes.setdefault(address, (width or "", height or ""))
    if not sizes:
        raise KeyError("address")
    url, *others = sizes
    width, height = sizes[url]
    return {"url": url, "fallbacks": " ".join(others[:FALLBACKS]),
            "page": clean_address(text(page)) if text(page) else "",
            "title": html.unescape(re.sub("<.*?>", "", text(title))),
            "width": width, "height": height}


def new_results(results, seen):
    """Yield results that share no address with those in `seen` (address -> result); add them."""
    covered = {address for result in seen.values() for address in addresses_of(result)}
    for result in results:
        if result["url"] not in covered:
            covered.update(addresses_of(result))
            seen[result["url"]] = result
            yield result


def addresses_of(result):
    """Return every address of a result."""
    return result["url"], *result["fallbacks"].split()

"""Results in the HTML of Yandex Images: its state, else its tiles.

The keys are those of https://github.com/searxng/searxng (searx/engines/yandex.py),
https://github.com/karust/openserp (yandex/) and https://github.com/kitUIN/PicImageSearch, and of an
overview of similar photographs saved in April 2026; no live page was available.
"""
import contextlib
import html
import json
import re
from collections import Counter
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from dataset_preparation.parsing.addresses import clean_address, host_of
from dataset_preparation.parsing.sources import SearchFailed, dig, read_records, text_of

FALLBACKS = 5  # further addresses kept of one photograph


class ChangedMarkup(SearchFailed):
    """A page without any known element."""


class Content(NamedTuple):
    """The content of a page."""

    results: list
    is_last: bool = False  # no page follows
    is_filling: bool = False  # results are still being loaded
    is_expired: bool = False  # Yandex could not load the photograph to compare with
    passed_over: dict = {}  # reason -> number of entries that could not be read


class Page(HTMLParser):
    """Elements in a page's HTML: states, tiles; signs of a captcha, a banner, no results."""

    def __init__(self, text):
        super().__init__()
        self.text, self.states, self.tiles = text, [], []
        self.captcha = self.consent = self.empty = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Record one element."""
        attrs = {name: value or "" for name, value in attrs}
        classes, link = attrs.get("class", ""), attrs.get("href", "")
        if "data-state" in attrs:
            with contextlib.suppress(ValueError, RecursionError):
                state = dig(json.loads(attrs["data-state"]), "initialState")
                self.states += [state] if isinstance(state, dict) else []
        is_tile = re.search(r"ContentImage-Cover|CbirSimilar", classes)
        if tag == "a" and "img_url=" in link and is_tile:
            self.tiles.append({"url": link})
        if tag == "img" and self.tiles and re.search(r"ContentImage-Image|ThumbImage", classes):
            self.tiles[-1].setdefault("image", attrs.get("src", ""))
            self.tiles[-1].setdefault("alt", attrs.get("alt", ""))
        self.captcha |= "/checkcaptcha" in attrs.get("action", "") or "form__captcha" in classes
        self.consent |= "gdpr-popup-v3-main" in classes
        self.empty |= "EmptySearchResults" in classes


def read_content(page):
    """Return the `Content` of a `Page`; raise ChangedMarkup if its form is unknown.

    Even a complete overview of similar photographs has `pending` and `isEmptyPage`, so these only
    count if there are no results.
    """
    known, passed_over, content = page.empty, Counter(), Content([])
    for state in page.states:
        serp, preview = state.get("serpList"), state.get("cbirPreview")
        entities = ordered_entities(dig(serp, "items"))
        thumbs = list_at(state, "cbirSimilar", "thumbs")
        results = (read_records(entities, from_entity, passed_over)
                   or read_records(thumbs, from_thumb, passed_over))
        is_expired = dig(preview, "imageExpired") is True and not results
        is_filling = dig(serp, "pending") is True and not (
            results or is_expired or dig(preview, "isCbirEmpty"))
        content = Content(results, dig(serp, "navi", "next") == "", is_filling, is_expired,
                          passed_over)
        if results:
            return content
        known |= dig(serp, "items") is not None or any(key.startswith("cbir") for key in state)
        known &= not (entities or thumbs)  # there are entries, but none can be read
    results = read_records(page.tiles, from_entity, passed_over)
    if not (results or known):
        raise ChangedMarkup
    return Content(results, passed_over=passed_over) if results else content


def ordered_entities(items):
    """Return the entities of a `serpList` in the order of its `keys`, else of their `pos`."""
    entities = dig(items, "entities")
    if not isinstance(entities, dict):
        return []
    if keys := list_at(items, "keys"):
        listed = dict.fromkeys(key for key in map(str, keys) if key in entities)
        return [entities[key] for key in (*listed, *(key for key in entities if key not in listed))]
    return sorted(entities.values(), key=lambda entity: number_or_zero(dig(entity, "pos")))


def list_at(value, *keys):
    """Return the list under these keys of nested JSON objects, [] if there is none."""
    found = dig(value, *keys)
    return found if isinstance(found, list) else []


def number_or_zero(value):
    """Return a value if it is a number, else 0."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


# ---- one result ----

def from_entity(entity):
    """Yield the result in an entity of `serpList`, or in a tile, which has some of its fields."""
    viewer = entity.get("viewerData")
    snippet = entity.get("snippet") or dig(viewer, "snippet")
    size = entity.get("origWidth"), entity.get("origHeight")
    originals = [(entity.get("origUrl"), *size), (original_in(entity.get("url")), *size),
                 *copies_of(viewer), (dig(viewer, "img_href"), 0, 0)]
    yield make_result(originals, [entity.get("image"), dig(viewer, "thumb", "url")],
                      dig(snippet, "url"), text_of(dig(snippet, "title")) or entity.get("alt"))


def from_thumb(thumb):
    """Yield the result in a thumbnail of `cbirSimilar`, which does not have the original's size."""
    yield make_result([(original_in(thumb.get("linkUrl")), 0, 0)], [thumb.get("imageUrl")], "",
                      thumb.get("title"))


def copies_of(item):
    """Return (address, width, height) of every copy in `dups` and `preview`, and its origin."""
    copies = [*list_at(item, "dups"), *list_at(item, "preview")]
    return [(dig(file, "url"), dig(file, "w"), dig(file, "h"))
            for copy in copies for file in (dig(copy, "origin"), copy)]


def original_in(link):
    """Return the address of the original in a link to the viewer, "" if it has none."""
    return parse_qs(urlsplit(text_of(link)).query).get("img_url", [""])[0]


def is_cached(address):
    """Return whether an address is Yandex's copy of a photograph."""
    return bool(re.search(r"(^|\.)(yandex\.[a-z.]+|yastatic\.net)(:\d+)?$", host_of(address)))


def make_result(originals, thumbnails, page, title):
    """Return a result: originals before Yandex's copies before thumbnails, larger ones first.

    `originals` are (address, width, height) with the announced size, or 0. Raises LookupError if no
    address is usable.
    """
    files = [(clean_address(address), number_or_zero(width), number_or_zero(height))
             for address, width, height in originals if text_of(address)]
    files.sort(key=lambda file: (is_cached(file[0]), -file[1] * file[2]))
    files += [(clean_address(address), 0, 0) for address in filter(None, map(text_of, thumbnails))]
    sizes = {}  # address -> (width, height), best address first
    for address, width, height in files:
        if host_of(address):
            sizes.setdefault(address, (width or "", height or ""))
    if not sizes:
        raise KeyError("address")
    url, *others = sizes
    width, height = sizes[url]
    return {"url": url, "fallbacks": " ".join(others[:FALLBACKS]),
            "page": clean_address(page) if text_of(page) else "",
            "title": html.unescape(re.sub("<.*?>", "", text_of(title))),
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

"""Results in the HTML of Yandex Images: its state, else its tiles, else the markup before 2023.

The keys as seen in https://github.com/searxng/searxng (searx/engines/yandex.py),
https://github.com/karust/openserp (yandex/) and https://github.com/kitUIN/PicImageSearch; no live
page was at hand when this was written.
"""
import html
import json
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

from dataset_preparation.parsing.safe_download import clean_address, host_of
from dataset_preparation.parsing.sources import SearchFailed

FALLBACKS = 5  # further addresses kept of one photograph


class ChangedMarkup(SearchFailed):
    """A page on which nothing known is found."""


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
    """Return the results of a `Page` in order, [] if nothing was found; raises ChangedMarkup."""
    known_state = False
    for state in page.states:
        entities = ((state.get("serpList") or {}).get("items") or {}).get("entities")
        thumbs = (state.get("cbirSimilar") or {}).get("thumbs")
        ordered = sorted((entities or {}).values(), key=lambda entity: entity.get("pos", 0))
        results = read_all(ordered, from_entity) or read_all(thumbs or [], from_thumb)
        if results:
            return results
        known_state |= entities is not None or any(key.startswith("cbir") for key in state)
        known_state &= not (entities or thumbs)  # there are some, but none can be read
    results = read_all(page.tiles, from_entity) or read_all(page.legacy_tiles, from_legacy_tile)
    if not (results or known_state or page.empty):
        raise ChangedMarkup
    return results


def read_all(items, reader):
    """Return the results that a reader finds in items, without those that have no address."""
    return [result for result in map(reader, items) if result]


def from_entity(entity):
    """Return the result in an entity of `serpList`, or in a tile, which has some of its fields."""
    viewer = entity.get("viewerData") or {}
    snippet = entity.get("snippet") or viewer.get("snippet") or {}
    size = entity.get("origWidth", 0), entity.get("origHeight", 0)
    originals = [(entity.get("origUrl"), *size), (original_in(entity.get("url", "")), *size),
                 *copies_of(viewer)]
    thumbnails = [entity.get("image"), (viewer.get("thumb") or {}).get("url")]
    return make_result(originals, thumbnails, snippet.get("url"),
                       snippet.get("title") or entity.get("alt"))


def from_thumb(thumb):
    """Return the result in a thumbnail of `cbirSimilar`."""
    original = original_in(thumb.get("linkUrl", ""))
    return make_result([(original, thumb.get("width", 0), thumb.get("height", 0))],
                       [thumb.get("imageUrl")], "", thumb.get("title"))


def from_legacy_tile(tile):
    """Return the result in the JSON of a tile before 2023."""
    snippet = tile.get("snippet") or {}
    return make_result([*copies_of(tile), (tile.get("img_href"), 0, 0)],
                       [(tile.get("thumb") or {}).get("url")],
                       snippet.get("url"), snippet.get("title"))


def copies_of(item):
    """Return (address, width, height) of every copy in `dups` and `preview`, and its origin."""
    copies = []
    for copy in (item.get("dups") or []) + (item.get("preview") or []):
        for file in (copy.get("origin") or {}, copy):
            copies.append((file.get("url"), file.get("w", 0), file.get("h", 0)))
    return copies


def original_in(link):
    """Return the address of the original in a link to the viewer, "" if it has none."""
    return parse_qs(urlsplit(link).query).get("img_url", [""])[0]


def is_cached(address):
    """Return whether an address is Yandex's own copy of a photograph."""
    return bool(re.search(r"(^|\.)(yandex\.[a-z.]+|yastatic\.net)(:\d+)?$", host_of(address)))


def make_result(originals, thumbnails, page, title):
    """Return a result: originals before Yandex's copies before thumbnails, larger ones first.

    `originals` are (address, width, height). Returns None if no address is usable.
    """
    files = [(clean_address(address), width or 0, height or 0)
             for address, width, height in originals if address]
    files.sort(key=lambda file: (is_cached(file[0]), -file[1] * file[2]))
    files += [(clean_address(address), "", "") for address in thumbnails if address]
    sizes = {}  # address -> (width, height), best address first
    for address, width, height in files:
        if host_of(address):
            sizes.setdefault(address, (width or "", height or ""))
    if not sizes:
        return None
    url, *others = sizes
    width, height = sizes[url]
    return {"url": url, "fallbacks": " ".join(others[:FALLBACKS]),
            "page": clean_address(page) if page else "",
            "title": html.unescape(re.sub("<.*?>", "", title or "")),
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

"""Results in the HTML of Yandex Images: from the page's own state, else its tiles, else the markup of before 2023.

The keys as seen in https://github.com/searxng/searxng (searx/engines/yandex.py), https://github.com/karust/openserp
(yandex/) and https://github.com/kitUIN/PicImageSearch; no live page was at hand when this was written.
"""
import html
import json
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

from dataset_preparation.parsing.parsing_utils import SearchFailed
from dataset_preparation.parsing.safe_download import clean_address, host_of

FALLBACKS = 5  # other addresses kept of one picture


class ChangedMarkup(SearchFailed):
    """A page on which nothing known is found."""


class Page(HTMLParser):
    """What matters of a page's HTML: states, tiles, legacy tiles, and signs of a captcha, a banner, nothing found."""

    def __init__(self, text):
        super().__init__()
        self.text, self.states, self.tiles, self.legacy = text, [], [], []
        self.captcha = self.consent = self.empty = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        """Note one element."""
        attrs = {name: value or "" for name, value in attrs}
        classes, link = attrs.get("class", ""), attrs.get("href", "")
        if "data-state" in attrs:
            self.states += parsed(attrs["data-state"], "initialState")
        if "data-bem" in attrs and "serp-item" in classes.split():
            self.legacy += parsed(attrs["data-bem"], "serp-item")
        if tag == "a" and "img_url=" in link and re.search(r"ContentImage-Cover|CbirSimilar", classes):
            self.tiles.append({"url": link})
        if tag == "img" and self.tiles and re.search(r"ContentImage-Image|ThumbImage", classes):
            self.tiles[-1].setdefault("image", attrs.get("src", ""))
            self.tiles[-1].setdefault("alt", attrs.get("alt", ""))
        self.captcha |= "/checkcaptcha" in attrs.get("action", "") or "form__captcha" in classes
        self.consent |= "gdpr-popup-v3-main" in classes
        self.empty |= "EmptySearchResults" in classes


def parsed(text, key):
    """Return [the object under `key` of a JSON text], [] where there is none."""
    try:
        value = json.loads(text)[key]
    except (ValueError, KeyError, TypeError):
        return []
    return [value] if isinstance(value, dict) else []


def read_page(page):
    """Return the results of a `Page`, in order, empty when nothing was found; raises ChangedMarkup."""
    known_state = False
    for state in page.states:
        entities = ((state.get("serpList") or {}).get("items") or {}).get("entities")
        thumbs = (state.get("cbirSimilar") or {}).get("thumbs")
        known_state |= entities is not None or any(key.startswith("cbir") for key in state)
        if entities:
            ordered = sorted(entities.values(), key=lambda entity: entity.get("pos", 0))
            if results := list(filter(None, map(from_entity, ordered))):
                return results
        if thumbs and (results := list(filter(None, map(from_thumb, thumbs)))):
            return results
        known_state &= not (entities or thumbs)  # entries of which none can be read
    for items, reader in ((page.tiles, from_entity), (page.legacy, from_legacy)):
        if results := list(filter(None, map(reader, items))):
            return results
    if not (known_state or page.empty):
        raise ChangedMarkup
    return []


def from_entity(entity):
    """Return the result in an entity of `serpList`, or in a tile, which has some of the same fields."""
    viewer = entity.get("viewerData") or {}
    snippet = entity.get("snippet") or viewer.get("snippet") or {}
    size = entity.get("origWidth", 0), entity.get("origHeight", 0)
    return result([(entity.get("origUrl"), *size), (original_in(entity.get("url", "")), *size), *copies(viewer)],
                  [entity.get("image"), (viewer.get("thumb") or {}).get("url")],
                  snippet.get("url"), snippet.get("title") or entity.get("alt"))


def from_thumb(thumb):
    """Return the result in a thumbnail of `cbirSimilar`."""
    size = thumb.get("width", 0), thumb.get("height", 0)
    return result([(original_in(thumb.get("linkUrl", "")), *size)], [thumb.get("imageUrl")], "", thumb.get("title"))


def from_legacy(item):
    """Return the result in the JSON of a tile of before 2023."""
    snippet = item.get("snippet") or {}
    return result([*copies(item), (item.get("img_href"), 0, 0)], [(item.get("thumb") or {}).get("url")],
                  snippet.get("url"), snippet.get("title"))


def copies(item):
    """Return (address, width, height) of every copy listed in `dups` and `preview`, true origins included."""
    found = []
    for copy in (item.get("dups") or []) + (item.get("preview") or []):
        for one in (copy.get("origin") or {}, copy):
            found.append((one.get("url"), one.get("w", 0), one.get("h", 0)))
    return found


def original_in(link):
    """Return the address of the original in a link to the viewer, "" if it has none."""
    return parse_qs(urlsplit(link).query).get("img_url", [""])[0]


def is_cached(address):
    """Return whether an address is Yandex's own copy of a picture."""
    return bool(re.search(r"(^|\.)(yandex\.[a-z.]+|yastatic\.net)(:\d+)?$", host_of(address)))


def result(originals, thumbnails, page, title):
    """Return a result: the best address first, originals before Yandex's copies before thumbnails, larger first.

    `originals` are (address, width, height); None if no address is usable.
    """
    sized = [(clean_address(address), width or 0, height or 0) for address, width, height in originals if address]
    sized.sort(key=lambda one: (is_cached(one[0]), -one[1] * one[2]))
    sized += [(clean_address(address), "", "") for address in thumbnails if address]
    unique = {}
    for address, width, height in sized:
        if host_of(address):
            unique.setdefault(address, (width or "", height or ""))
    if not unique:
        return None
    url, *others = unique
    width, height = unique[url]
    return {"url": url, "fallbacks": " ".join(others[:FALLBACKS]),
            "page": clean_address(page or "") if page else "", "title": html.unescape(re.sub("<.*?>", "", title or "")),
            "width": width, "height": height}


def fresh(results, seen):
    """Yield results of which no address is among the `seen` results (address: result), adding them."""
    covered = {address for one in seen.values() for address in (one["url"], *one["fallbacks"].split())}
    for one in results:
        if one["url"] not in covered:
            covered.update((one["url"], *one["fallbacks"].split()))
            seen[one["url"]] = one
            yield one

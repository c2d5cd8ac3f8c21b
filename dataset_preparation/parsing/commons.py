"""Photographs of Wikimedia Commons, by category or text (https://commons.wikimedia.org/w/api.php).

Its rules: a contact in the User-Agent, one request after the other, `maxlag`, standard sizes of
thumbnails (https://www.mediawiki.org/wiki/API:Etiquette, https://w.wiki/GHai).
"""
import html
import json
import re

from dataset_preparation.parsing.addresses import clean_address
from dataset_preparation.parsing.rest_api import Answer, RestApi, own_words
from dataset_preparation.parsing.safe_download import Failed
from dataset_preparation.parsing.scientific_names import spellings, without_authors
from dataset_preparation.parsing.source_settings import build_options
from dataset_preparation.parsing.sources import SearchFailed, UnknownName, dig, text_of
from utils import warn

PER_PAGE = 50  # the most that may have thumbnails
MAX_LAG = 5  # seconds that the site's databases may lag behind before it asks to wait
BUSY = ("maxlag", "ratelimited", "readonly")
WIDTHS = {"small": 250, "medium": 500, "large": 1280, "original": 1280}  # pixels, of thumbnails
LONGEST = 1.95  # width : height above which a thumbnail is too low for cleaning
PHOTOGRAPHS = ("image/jpeg", "image/png", "image/webp")
LICENSE = ("License", "LicenseShortName", "LicenseUrl")
# as EXIF has it, or in the HTML of a description, which also shows it in words
DATE = re.compile(r"\b[12]\d{3}[-:]\d\d[-:]\d\d|\b[12]\d{3}(-\d\d)?")
METADATA = (*LICENSE, "Artist", "DateTimeOriginal", "GPSLatitude", "GPSLongitude", "NonFree")


def build_source(web, s):
    """Return the source that the settings describe."""
    if not s.contact:
        warn("commons: Wikimedia asks for a contact in the User-Agent and may refuse without one; "
             "give --contact")
    return Commons(web, s.commons_url, build_options(s), s.commons_search)


class Commons(RestApi):
    """Yields photographs with their provenance, see `sources.Source`."""

    per_page, limits = PER_PAGE, "one request after the other, 2 downloads at once"

    def __init__(self, web, url, options, kind="category"):
        super().__init__(web, url, {"by": kind}, options)
        self.kind = kind

    def find(self, name):
        """Return the first question for a name: a list of files; raises UnknownName."""
        if self.kind == "text":
            return {"generator": "search", "gsrnamespace": 6, "gsrlimit": PER_PAGE,
                    "gsrsearch": f'"{without_authors(name)}" filetype:bitmap'}
        titles = [f"Category:{spelling}" for spelling in spellings(name)]
        pages, _ = self._pages({"titles": "|".join(titles), "prop": "categoryinfo"})
        known = {text_of(page.get("title")) for page in pages
                 if "missing" not in page and "invalid" not in page}
        title = next((title for title in titles if title in known), None)
        if title is None:
            raise UnknownName("Wikimedia Commons has no category of this name; "
                              "--commons_search text looks for it in descriptions")
        if title != titles[0]:
            self.note = f"searched as {title}"
        return members(title)

    def ask(self, taxon, season, start, end, at):
        """Return one page of files; `at` is its question, 0 the first one.

        The files of the subcategories of a category follow its own.
        """
        question = at or taxon
        pages, go_on = self._pages({
            **question, "prop": "imageinfo", "iiprop": "url|size|mime|extmetadata",
            "iiurlwidth": WIDTHS[self.options.size], "iiextmetadatafilter": "|".join(METADATA),
            "iiextmetadatalanguage": "en"})
        # too large an answer comes in parts: the other files of the page follow
        files = [page for page in pages if dig(page, "imageinfo")]
        is_own = question.get("gcmtitle") == taxon.get("gcmtitle")
        below = [members(page["title"]) for page in pages if dig(page, "ns") == 14 and is_own
                 and page["title"] != taxon["gcmtitle"]]
        questions = ([{**question, **go_on}] if go_on else []) + below
        return Answer(files, gaps=[["", one, None] for one in questions])

    def key(self, page):
        """Return the title of a file."""
        return page["title"]

    def read(self, page, passed_over):
        """Return [the result of a file], [] if it is not a photograph of an allowed licence."""
        info = page["imageinfo"][0]
        facts = {name: re.sub(r"<[^>]*>", "", str(dig(info, "extmetadata", name, "value") or ""))
                 for name in METADATA}
        facts = {name: html.unescape(text).strip() for name, text in facts.items()}
        if info.get("mime") not in PHOTOGRAPHS:
            passed_over[f"not a photograph: {str(info.get('mime'))[:40]}"] += 1
            return []
        stated = "; ".join(filter(None, (facts[name] for name in LICENSE)))
        code = self.allowed_license("" if facts["NonFree"] else stated, passed_over)
        if not code:
            return []
        date = DATE.search(str(dig(info, "extmetadata", "DateTimeOriginal", "value")))
        title = re.sub(r"^File:|\.\w+$", "", page["title"])
        result = {"license": code, "title": title, "author": facts["Artist"],
                  "page": clean_address(text_of(info.get("descriptionurl"))),
                  "observer": facts["Artist"], "date": date[0].replace(":", "-") if date else "",
                  "latitude": facts["GPSLatitude"], "longitude": facts["GPSLongitude"]}
        return [result | self._addresses(info)]

    def _addresses(self, info):
        """Return the addresses of a file and its size in pixels: the thumbnail, or the original."""
        width, height = (info.get(side) if isinstance(info.get(side), int) else 0
                         for side in ("width", "height"))
        original, thumb = (clean_address(text_of(info.get(name))) for name in ("url", "thumburl"))
        is_small = (self.options.size != "original" and width > WIDTHS[self.options.size]
                    and width < LONGEST * height)
        first, other = (thumb, original) if thumb and is_small else (original, thumb)
        return {"url": first, "fallbacks": other if other != first else "",
                "width": width or "", "height": height or ""}

    def _pages(self, params):
        """Return (pages, parameters of the next question or {}) of an answer."""
        answer = self.get("api.php", action="query", format="json", formatversion=2,
                          maxlag=MAX_LAG, **params)
        if dig(answer, "error"):
            words = dig(answer, "error", "info") or own_words(json.dumps(answer))
            raise SearchFailed(f"Wikimedia Commons answers: {words}")
        pages, go_on = dig(answer, "query", "pages"), dig(answer, "continue")
        return ([page for page in pages if isinstance(page, dict)] if isinstance(pages, list)
                else [], go_on if isinstance(go_on, dict) else {})

    def _fetch(self, address):
        """Return the body of an address; raise Failed if the site is too busy."""
        body = super()._fetch(address)
        if b'"error"' in body[:1000]:
            answer = json.loads(body)
            if dig(answer, "error", "code") in BUSY:
                raise Failed(f"the site is busy: {dig(answer, 'error', 'info')}", MAX_LAG)
        return body


def members(title):
    """Return the question for the files and subcategories of a category."""
    return {"generator": "categorymembers", "gcmtitle": title, "gcmtype": "file|subcat",
            "gcmlimit": PER_PAGE}

"""Yandex Images through a real browser: photographs by name and photographs similar to one.

It distinguishes a captcha, a consent banner, no results, a page still being filled, the end of the
results, changed markup and a network error, and reports each of them.
"""
import re
import time
from pathlib import Path

from dataset_preparation.parsing.browser import BrowserChoice, require_no_password
from dataset_preparation.parsing.connections import build_network_access
from dataset_preparation.parsing.sources import NothingYet, ResultPage, SearchFailed, Source
from dataset_preparation.parsing.yandex_pages import (
    ChangedMarkup,
    is_cached,
    new_results,
    read_content,
)
from dataset_preparation.parsing.yandex_window import NoPage, Pace, Window
from utils import InputError, warn, write_text

PAGES, PER_PAGE = 50, 30  # most pages that Yandex shows, and results on each
OVERVIEW = 40  # similar photographs on the overview
NO_SIMILAR = 3  # photographs in a row without similar ones before a warning


def build_source(web, s):
    """Return the source of the settings; `web` is not used, as a browser loads the pages."""
    if not s.yandex_url:
        raise InputError("YANDEX_URL names no address; give one as config.py has it")
    filters = {"type": s.image_search_type, "iorient": s.image_search_orientation,
               "icolor": s.image_search_color, "itype": s.image_search_format,
               "site": s.image_search_site, **size_filter(s.image_search_size)}
    pace = Pace(s.page_delay, s.page_seconds, 0.0 if s.headless else s.captcha_seconds,
                60 * s.patience_minutes, s.busy_seconds)
    proxies = build_network_access(s).proxies(s.yandex_url[0])
    require_no_password(proxies)
    browser = BrowserChoice(s.browser, s.browser_arguments, s.headless, s.grid_url, proxies)
    return YandexImages(Window(browser, s.yandex_url, pace), filters, s.collected_dir,
                        s.similar_results)


def size_filter(text):
    """Return the parameters of a size filter: one of Yandex's words, or a size as "1920x1080"."""
    exact = re.fullmatch(r"(\d+)x(\d+)", text)
    return {"isize": "eq", "iw": exact[1], "ih": exact[2]} if exact else {"isize": text}


class YandexImages(Source):
    """Yields results page by page, see `sources.Source`.

    A captcha stops the source, or waits for a person to solve it; it is never circumvented. If a
    front door shows no similar photographs, as in some countries, the next one is used.
    """

    limits, one_host = "a captcha ends a run", False

    def __init__(self, window, filters, folder, similar_results=OVERVIEW):
        self.window, self.folder, self.similar_results = window, folder, similar_results
        self.filters = self.terms = {name: value for name, value in filters.items() if value}
        # The overview shows 40 photographs in one load but has no filters. That for photographs is
        # not needed: a picture similar to a photograph nearly always is one.
        self.overview = set(self.filters) <= {"type"}
        self.page_seconds = sum(window.pace.delay) / 2
        self.shows_similar, self.without_similar = False, 0  # photographs in a row

    def close(self):
        """Close the browser."""
        self.window.close()

    # ---- searches ----

    def page_count(self, kind, count):
        """Return how many pages `count` results take."""
        if kind == "similar" and self.overview:
            return 1 if count <= OVERVIEW else 1 + -(-count // PER_PAGE)
        return -(-count // PER_PAGE)

    def search(self, name, state=None, earlier=()):
        """Yield the pages of a name, its spelling uncorrected; `state` is the next number."""
        yield from self._turn_pages({"text": name, "nomisspell": 1, "noreask": 1, **self.filters},
                                    {row["url"]: row for row in earlier}, state or 0)

    def similar(self, row, state=None, earlier=()):
        """Yield pages of photographs similar to a found row: the overview, then further pages.

        Yandex must load the photograph itself; if its site does not allow that, Yandex's copy is
        used. `state` is [index of the address, number of its next page, None for the overview].
        """
        copies = [address for address in row["fallbacks"].split() if is_cached(address)]
        addresses, seen = (row["url"], *copies[:1]), {row["url"]: row for row in earlier}
        start, first = state or (0, None)
        for number in range(start, len(addresses)):
            params = {"rpt": "imageview", "url": addresses[number]}
            further = [number + 1, None] if number + 1 < len(addresses) else None
            if self.overview and first is None:
                content = self._read_similar(params)
                new = list(new_results(content.results, seen))
                if not (seen or further):
                    self._note_no_similar()
                    if content.is_expired:
                        raise SearchFailed("Yandex could not load the photograph")
                yield ResultPage(new, [number, 0] if new else further, content.passed_over)
                if seen and self.similar_results <= OVERVIEW:
                    return
            if seen or not self.overview:
                params.update(cbir_page="similar", **self.filters)
                for page in self._turn_pages(params, seen, first or 0):
                    more = None if page.state is None else [number, page.state]
                    yield page._replace(state=more if seen else further)
            if seen:
                return
            first = None

    def _turn_pages(self, params, seen, first=0):
        """Yield pages of results not in `seen` (address -> result), which grows."""
        if first == "scroll":
            yield from self._scroll(params, seen)
            return
        for number in range(first, PAGES):
            before = len(seen)
            try:
                content = self._read({**params, "p": number})
            except NoPage as error:
                if not number:
                    raise SearchFailed(str(error)) from None
                yield ResultPage([])
                return
            new = list(new_results(content.results, seen))
            is_end = content.is_last or not content.results
            yield ResultPage(new, None if is_end else number + 1, content.passed_over)
            if is_end:
                return
            if len(seen) == before and number:  # the parameter `p` has no effect
                yield from self._scroll(params, seen)
                return

    def _scroll(self, params, seen):
        """Yield new results while scrolling the first page and pressing its "more" button."""
        self._read(params)
        for _ in range(PAGES):
            if not self.window.show_more():
                return
            page, address = self.window.shown()
            page.states = []  # they only describe the first tiles
            content = self._content(page, address)
            yield ResultPage(list(new_results(content.results, seen)), "scroll",
                             content.passed_over)

    # ---- similar photographs ----

    def _read_similar(self, params):
        """Return the `Content` of an overview from the first front door that shows results."""
        content = self._read(params)
        is_open = not (content.results or self.shows_similar) and self.without_similar < NO_SIMILAR
        for url in self.window.urls[1:] if is_open else ():
            try:
                other = self._read(params, (url,))
            except SearchFailed as error:  # even a captcha: the first front door has none
                warn(f"{url} is not used for similar photographs: {error}")
                self.window.urls.remove(url)
                continue
            if other.results:
                warn(f"{self.window.urls[0]} shows no similar photographs here; {url} does and is "
                     "used from now on")
                self.window.prefer(url)
                content = other
                break
        if content.results:
            self.shows_similar, self.without_similar = True, 0
        return content

    def _note_no_similar(self):
        """Count a photograph without similar ones; warn if all are."""
        self.without_similar += 1
        if self.without_similar == NO_SIMILAR and not self.shows_similar:
            warn(f"{NO_SIMILAR} photographs in a row without similar ones: YANDEX_URL "
                 f"({', '.join(self.window.urls)}) seems to show none in this country; try another "
                 "front door, such as --yandex_url https://yandex.ru/images/search, or leave them "
                 "out with --similar_to 0")

    # ---- pages ----

    def _read(self, params, urls=()):
        """Return the `Content` of a page of the search; raises NoPage and SearchFailed."""
        page, address = self.window.load(params, urls)
        content = self._content(page, address)
        # a later page without results is the end
        if content.is_filling and not params.get("p"):
            return self._wait_for_results(address)
        return content

    def _content(self, page, address):
        """Return the `Content` of a `Page`; if its markup is unknown, save it and raise."""
        try:
            return read_content(page)
        except ChangedMarkup:
            file = f"{time.strftime('%Y%m%d_%H%M%S')}.html"
            path = Path(self.folder) / "changed_markup" / file
            write_text(path, f"<!-- {address} -->\n{page.text}")
            raise ChangedMarkup(f"changed markup: no results can be read at {address}; the page is "
                                f"saved as {path} for a bug report") from None

    def _wait_for_results(self, address):
        """Return the `Content` of the shown page once it has results; raises NothingYet."""
        seconds = self.window.pace.page
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.3)
            content = read_content(self.window.shown()[0])
            if content.results:
                return content
        raise NothingYet(f"still being filled after {seconds:g} s: {address}")

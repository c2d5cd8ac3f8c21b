"""Yandex Images through a real browser: photographs by name and photographs similar to one.

Results are read from the page's own state (`data-state`), else from its tiles, else from the markup of before 2023.
The state's keys as seen in https://github.com/searxng/searxng (searx/engines/yandex.py) and
https://github.com/karust/openserp (yandex/); no live page was at hand when this was written.
"""
import contextlib
import html
import json
import random
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from urllib3.exceptions import HTTPError

import config
from dataset_preparation.parsing.parsing_utils import SearchFailed, SourceStopped
from dataset_preparation.parsing.web import RETRIED, clean_address, host_of
from utils import InputError, write_text

PAGES = 50  # Yandex shows no more
ATTEMPTS = 3  # per page, when the network fails
FALLBACKS = 5  # other addresses kept of one picture
# one of these is on every page known: results in three markups, nothing found, captcha
READY = ("[data-state*=serpList], [data-state*=cbir], a[class*=ContentImage-Cover], a[class*=CbirSimilar], "
         ".serp-item[data-bem], [class*=EmptySearchResults], form[action*=checkcaptcha], .form__captcha")
TILES = "a[class*=ContentImage-Cover], .serp-item[data-bem]"
MORE = "button[class*=FetchListButton-Button], [class*=FetchListButton] button, div[class^=more] a[class*=button2]"
CONSENT = ".gdpr-popup-v3-button_id_mandatory", "#gdpr-popup-v3-button-mandatory", "#gdpr-popup-v3-button-all"
FIREFOX = webdriver.Firefox, webdriver.FirefoxOptions, webdriver.FirefoxService, "geckodriver", "-headless"
CHROME = webdriver.Chrome, webdriver.ChromeOptions, webdriver.ChromeService, "chromedriver", "--headless=new"
BROWSERS = {  # name: selenium's classes, the driver, the argument for no window; programs selenium does not look for
    "firefox": (*FIREFOX, ()), "chrome": (*CHROME, ()), "chromium": (*CHROME, ("chromium", "chromium-browser"))}


class ChangedMarkup(SearchFailed):
    """A page on which nothing known is found."""


def build_source(web):
    """Return the source as the settings describe it; `web` is not needed, the browser fetches the pages."""
    if config.BROWSER not in BROWSERS:
        raise InputError(f"BROWSER is {config.BROWSER!r}; there are {', '.join(BROWSERS)}")
    filters = {"type": config.IMAGE_SEARCH_TYPE, "iorient": config.IMAGE_SEARCH_ORIENTATION,
               "icolor": config.IMAGE_SEARCH_COLOR, "itype": config.IMAGE_SEARCH_FORMAT,
               "site": config.IMAGE_SEARCH_SITE, **size_filter(config.IMAGE_SEARCH_SIZE)}
    browser = (config.BROWSER, config.BROWSER_ARGUMENTS, config.HEADLESS, config.GRID_URL)
    return YandexImages(lambda: open_browser(*browser), config.YANDEX_URL, filters, config.PAGE_DELAY,
                        config.PAGE_SECONDS, 0.0 if config.HEADLESS else config.CAPTCHA_SECONDS, config.COLLECTED_DIR)


def size_filter(text):
    """Return the parameters of a size filter: a word of Yandex's, or an exact size as "1920x1080"."""
    exact = re.fullmatch(r"(\d+)x(\d+)", text)
    return {"isize": "eq", "iw": exact[1], "ih": exact[2]} if exact else {"isize": text}


def open_browser(name, arguments, headless, grid_url):
    """Return a driver of a new browser with a temporary profile, of this machine or of a Selenium Grid."""
    browser, options_class, service_class, driver, no_window, programs = BROWSERS[name]
    options = options_class()
    options.page_load_strategy = "eager"
    for argument in (*arguments, *([no_window] if headless else [])):
        options.add_argument(argument)
    if headless and name == "firefox":  # pictures are fetched later, in full; a person needs to see a captcha's
        options.set_preference("permissions.default.image", 2)
    elif headless:
        options.add_argument("--blink-settings=imagesEnabled=false")
    if grid_url:
        return webdriver.Remote(command_executor=grid_url, options=options)
    program = next(filter(None, map(shutil.which, programs)), None)
    if program:
        options.binary_location = program
    own = sorted((Path(__file__).parent / "geckodriver").glob(f"{driver}*"))
    path = str(own[0]) if own else shutil.which(driver)  # None: Selenium Manager finds or downloads one
    return browser(options=options, service=service_class(executable_path=path))


# ---- pages ----

class Page(HTMLParser):
    """What matters of a page's HTML: states, tiles, legacy tiles, and signs of a captcha, a banner, nothing found."""

    def __init__(self, text):
        super().__init__()
        self.states, self.tiles, self.legacy = [], [], []
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


# ---- searching ----

class YandexImages:
    """Yields results page by page; see `parsing.SOURCES` for what a source must offer.

    One browser for all searches, opened at the first. A captcha stops the source, or waits `captcha_seconds` for the
    person at the window; it is never worked around.
    """

    def __init__(self, open_browser, url, filters, delay, page_seconds, captcha_seconds, folder):
        self.open_browser, self.url, self.delay, self.page_seconds = open_browser, url, delay, page_seconds
        self.filters = {name: value for name, value in filters.items() if value}
        self.captcha_seconds, self.folder, self.driver, self.note, self.asked = captcha_seconds, folder, None, "", 0.0

    def close(self):
        """Close the browser."""
        if self.driver is not None:
            with contextlib.suppress(WebDriverException, HTTPError, OSError):  # it may be gone already
                self.driver.quit()
            self.driver = None

    def query(self, text):
        """Return what is asked for a text, filters included."""
        return " ".join([text, *(f"{name}={value}" for name, value in self.filters.items())])

    def search(self, name, count):
        """Yield up to `count` results of a name, its spelling uncorrected."""
        yield from self._turn_pages({"text": name, "nomisspell": 1, "noreask": 1, **self.filters}, count, {})

    def similar(self, row, count):
        """Yield up to `count` results that look like a found row: first of the overview, then page by page.

        Yandex must load the picture itself; where its site does not let it, Yandex's own copy is asked for.
        """
        copies = [address for address in row["fallbacks"].split() if is_cached(address)]
        for address in (row["url"], *copies[:1]):
            params, seen = {"rpt": "imageview", "url": address}, {}
            if not self.filters:  # the overview knows none
                yield from fresh(self._read(params), count, seen)
            if self.filters or 0 < len(seen) < count:
                yield from self._turn_pages({**params, "cbir_page": "similar", **self.filters}, count, seen)
            if seen:
                return

    def _turn_pages(self, params, count, seen):
        """Yield what is not among the `seen` results (address: result, added to) until there are `count` of them."""
        for number in range(PAGES):
            before = len(seen)
            try:
                results = self._read({**params, "p": number})
            except ChangedMarkup as error:
                if number == 0:
                    raise
                results, self.note = True, str(error)
            else:
                yield from fresh(results, count, seen)
            if len(seen) >= count or not results:
                return
            if len(seen) == before and number:  # it does not turn pages by `p`
                yield from self._scroll(params, count, seen)
                return

    def _scroll(self, params, count, seen):
        """Yield what appears while scrolling the first page down and pressing its "more" button."""
        self._read(params)
        for _ in range(PAGES):
            shown = len(self.driver.find_elements(By.CSS_SELECTOR, TILES))
            time.sleep(random.uniform(*self.delay))
            self.driver.execute_script("window.scrollTo(0, document.body.scrollHeight)")
            for button in self.driver.find_elements(By.CSS_SELECTOR, MORE):
                with contextlib.suppress(WebDriverException):  # hidden, covered, or already replaced
                    button.click()
            try:
                WebDriverWait(self.driver, min(10.0, self.page_seconds)).until(
                    lambda driver, shown=shown: len(driver.find_elements(By.CSS_SELECTOR, TILES)) > shown)
            except TimeoutException:
                return
            page = Page(self.driver.page_source)
            page.states = []  # the state is that of the first tiles
            yield from fresh(read_page(page), count, seen)
            if len(seen) >= count:
                return

    def _read(self, params):
        """Return the results of a page; raises SearchFailed with the page saved, if its markup is not known."""
        address = f"{self.url}?{urlencode(params)}"
        text = self._load(address)
        page = Page(text)
        try:
            return read_page(page)
        except ChangedMarkup:
            path = Path(self.folder) / "changed_markup" / f"{time.strftime('%Y%m%d_%H%M%S')}.html"
            write_text(path, f"<!-- {address} -->\n{text}")
            raise ChangedMarkup(f"changed markup: no results are found at {address}; the page is saved as {path} "
                                "for a bug report") from None

    def _load(self, address):
        """Return the HTML of an address once it shows results, or whatever it shows when the time is up."""
        for attempt in range(1, ATTEMPTS + 1):
            time.sleep(max(0.0, self.asked + random.uniform(*self.delay) - time.monotonic()))
            try:
                driver = self._browser()
                driver.get(address)
                self.asked = time.monotonic()
                reason = self._trouble()
                if not reason:
                    self._wait_for(READY)
                    if Page(driver.page_source).captcha:
                        self._wait_for_person()
                    self._answer_consent()
                    return driver.page_source
            except TimeoutException:
                reason = f"no answer in {self.page_seconds:g} s"
            except (WebDriverException, HTTPError, OSError) as error:
                reason = str(getattr(error, "msg", None) or error).splitlines()[0]
                if not self._alive():
                    self.close()  # the next attempt opens another
            self.asked = time.monotonic() + 2.0 ** attempt
        raise SearchFailed(f"network error: {reason} at {address}")

    def _browser(self):
        """Return the driver of the one browser, opening it at the first call."""
        if self.driver is None:
            try:
                self.driver = self.open_browser()
            except (WebDriverException, HTTPError, OSError) as error:
                raise SourceStopped(f"the browser does not start: {str(error).splitlines()[0]}") from error
            self.driver.set_page_load_timeout(self.page_seconds)
        return self.driver

    def _trouble(self):
        """Return what is wrong with the answer as a whole: the browser's own error page, or an HTTP status; else ""."""
        address, status = self.driver.execute_script(
            "return [document.URL, performance.getEntriesByType('navigation')[0]?.responseStatus]")
        if not address.startswith("http"):
            return "the browser cannot show it"
        return f"HTTP {status}" if status in RETRIED and not Page(self.driver.page_source).captcha else ""

    def _alive(self):
        try:
            return bool(self.driver and self.driver.window_handles)
        except (WebDriverException, HTTPError, OSError):
            return False

    def _wait_for(self, selector):
        """Wait until the page has such an element; what it has instead is told from its HTML."""
        with contextlib.suppress(TimeoutException):
            WebDriverWait(self.driver, self.page_seconds, 0.2).until(
                lambda driver: driver.find_elements(By.CSS_SELECTOR, selector))

    def _wait_for_person(self):
        """Let the person at the window solve a captcha; without a window, stop."""
        if not self.captcha_seconds:
            raise SourceStopped("captcha: Yandex asks whether this is a robot; go on in some hours, or now with "
                                "--no-headless and solve it in the window")
        print(f"captcha: please solve it in the browser window within {self.captcha_seconds:g} s", flush=True)
        try:
            WebDriverWait(self.driver, self.captcha_seconds, 1.0).until(
                lambda driver: not Page(driver.page_source).captcha)
        except TimeoutException:
            raise SourceStopped(f"captcha: not solved within {self.captcha_seconds:g} s") from None
        self._wait_for(READY)

    def _answer_consent(self):
        """Answer a consent banner, with "essential only" where that is offered."""
        if not Page(self.driver.page_source).consent:
            return
        for selector in CONSENT:
            for button in self.driver.find_elements(By.CSS_SELECTOR, selector):
                with contextlib.suppress(WebDriverException):  # hidden
                    button.click()
                    print("consent: the banner of Yandex is answered", flush=True)
                    self._wait_for(READY)
                    return


def fresh(results, count, seen):
    """Yield results of which no address is among the `seen` results, adding them, until there are `count` of them."""
    covered = {address for one in seen.values() for address in (one["url"], *one["fallbacks"].split())}
    for one in results:
        if len(seen) < count and one["url"] not in covered:
            covered.update((one["url"], *one["fallbacks"].split()))
            seen[one["url"]] = one
            yield one

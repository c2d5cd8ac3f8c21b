"""Yandex Images through a real browser: photographs by name and photographs similar to one.

A captcha, a consent banner, no results, a changed page and a network error are told apart, and each
is reported as what it is.
"""
import contextlib
import random
import re
import shutil
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from urllib3.exceptions import HTTPError

from dataset_preparation.parsing.safe_download import Failed, is_transient, retry
from dataset_preparation.parsing.sources import (
    ResultPage,
    SearchFailed,
    SiteFailed,
    Source,
    SourceStopped,
)
from dataset_preparation.parsing.yandex_pages import (
    ChangedMarkup,
    Page,
    is_cached,
    new_results,
    read_page,
)
from utils import write_text

BROWSER_ERRORS = (WebDriverException, HTTPError, OSError)
PAGES, PER_PAGE = 50, 30  # Yandex shows no more
ATTEMPTS = 3  # per page, when the network fails
# every known page has one of these: results in three markups, no results, captcha
READY = ("[data-state*=serpList], [data-state*=cbir], a[class*=ContentImage-Cover], "
         "a[class*=CbirSimilar], .serp-item[data-bem], [class*=EmptySearchResults], "
         "form[action*=checkcaptcha], .form__captcha")
TILES = "a[class*=ContentImage-Cover], .serp-item[data-bem]"
MORE = ("button[class*=FetchListButton-Button], [class*=FetchListButton] button, "
        "div[class^=more] a[class*=button2]")
CONSENT = (".gdpr-popup-v3-button_id_mandatory", "#gdpr-popup-v3-button-mandatory",
           "#gdpr-popup-v3-button-all")  # "essential only" comes first


class BrowserKind(NamedTuple):
    """How Selenium starts one kind of browser."""

    driver: type
    options: type
    service: type
    driver_program: str
    no_window: str  # its argument for headless
    programs: tuple = ()  # names of the browser that Selenium does not look for


FIREFOX = BrowserKind(webdriver.Firefox, webdriver.FirefoxOptions, webdriver.FirefoxService,
                      "geckodriver", "-headless")
CHROME = BrowserKind(webdriver.Chrome, webdriver.ChromeOptions, webdriver.ChromeService,
                     "chromedriver", "--headless=new")
BROWSERS = {"firefox": FIREFOX, "chrome": CHROME,
            "chromium": CHROME._replace(programs=("chromium", "chromium-browser"))}


class Pace(NamedTuple):
    """How long the source waits, in seconds."""

    delay: tuple  # between two pages, drawn between these two
    page: float  # that a page may take to show results
    captcha: float  # for a person to solve a captcha, 0 without a window


def build_source(web, s):
    """Return the source that the settings describe; `web` is not used, the browser loads pages."""
    filters = {"type": s.image_search_type, "iorient": s.image_search_orientation,
               "icolor": s.image_search_color, "itype": s.image_search_format,
               "site": s.image_search_site, **size_filter(s.image_search_size)}
    pace = Pace(s.page_delay, s.page_seconds, 0.0 if s.headless else s.captcha_seconds)
    return YandexImages(
        lambda: open_browser(s.browser, s.browser_arguments, s.headless, s.grid_url),
        s.yandex_url, filters, pace, s.collected_dir)


def size_filter(text):
    """Return the parameters of a size filter: one of Yandex's words, or a size as "1920x1080"."""
    exact = re.fullmatch(r"(\d+)x(\d+)", text)
    return {"isize": "eq", "iw": exact[1], "ih": exact[2]} if exact else {"isize": text}


def open_browser(name, arguments, headless, grid_url):
    """Return the driver of a new browser with a temporary profile, here or on a Selenium Grid."""
    kind = BROWSERS[name]
    options = kind.options()
    options.page_load_strategy = "eager"
    for argument in (*arguments, *([kind.no_window] if headless else [])):
        options.add_argument(argument)
    # photographs are downloaded later, in full size; but a person has to see those of a captcha
    if headless and name == "firefox":
        options.set_preference("permissions.default.image", 2)
    elif headless:
        options.add_argument("--blink-settings=imagesEnabled=false")
    if grid_url:
        return webdriver.Remote(command_executor=grid_url, options=options)
    if program := next(filter(None, map(shutil.which, kind.programs)), None):
        options.binary_location = program
    path = shutil.which(kind.driver_program)  # None: Selenium Manager finds or downloads one
    return kind.driver(options=options, service=kind.service(executable_path=path))


def first_line(error):
    """Return the message of a browser's error without its stack."""
    return (str(getattr(error, "msg", None) or error) or type(error).__name__).splitlines()[0]


class YandexImages(Source):
    """Yields results page by page; `sources.Source` says what a source must have.

    One browser for all searches, opened at the first one. A captcha stops the source, or waits for
    the person at the window; it is never worked around.
    """

    def __init__(self, open_browser, url, filters, pace, folder):
        self.open_browser, self.url, self.pace, self.folder = open_browser, url, pace, folder
        self.filters = self.terms = {name: value for name, value in filters.items() if value}
        self.driver = None
        self.page_seconds = sum(pace.delay) / 2 + 1.0
        self.last_page = 0.0  # time.monotonic()

    def close(self):
        """Close the browser."""
        if self.driver is not None:
            with contextlib.suppress(*BROWSER_ERRORS):  # it may have ended already
                self.driver.quit()
            self.driver = None

    # ---- searches ----

    def page_count(self, kind, count):
        """Return how many pages `count` results take."""
        return 1 if kind == "similar" and not self.filters else -(-count // PER_PAGE)

    def search(self, name, state=None, earlier=()):
        """Yield the pages of a name, its spelling uncorrected; `state` is the next number."""
        yield from self._turn_pages({"text": name, "nomisspell": 1, "noreask": 1, **self.filters},
                                    {row["url"]: row for row in earlier}, state or 0)

    def similar(self, row, state=None, earlier=()):
        """Yield pages that look like a found row: first the overview, then by pages.

        Yandex has to load the photograph itself; where its site does not allow that, Yandex's own
        copy is searched for. `state` is [number of the address, number of its next page].
        """
        copies = [address for address in row["fallbacks"].split() if is_cached(address)]
        start, first = state or (0, 0)
        for number, address in enumerate((row["url"], *copies[:1])):
            if number < start:
                continue
            params, seen = {"rpt": "imageview", "url": address}, {row["url"]: row
                                                                  for row in earlier}
            if not self.filters and not first:  # the overview has none
                yield ResultPage(list(new_results(self._read(params), seen)), [number, 0])
            if self.filters or seen:
                for page in self._turn_pages({**params, "cbir_page": "similar", **self.filters},
                                             seen, first):
                    yield page._replace(state=[number, page.state] if page.state else
                                        None if seen else [number + 1, 0])
            if seen:
                return
            first = 0

    def _turn_pages(self, params, seen, first=0):
        """Yield pages of results not in `seen` (address -> result), which grows."""
        if first == "scroll":
            yield from self._scroll(params, seen)
            return
        for number in range(first, PAGES):
            before = len(seen)
            try:
                results = self._read({**params, "p": number})
            except ChangedMarkup as error:
                if number == 0:
                    raise
                self.note = str(error)
                yield from self._scroll(params, seen)
                return
            new = list(new_results(results, seen))
            yield ResultPage(new, number + 1 if results else None)
            if not results:
                return
            if len(seen) == before and number:  # this page does not turn by `p`
                yield from self._scroll(params, seen)
                return

    def _scroll(self, params, seen):
        """Yield what appears while the first page is scrolled and its "more" button pressed."""
        self._read(params)
        for _ in range(PAGES):
            try:
                if not self._show_more():
                    return
                page = Page(self.driver.page_source)
                address = self.driver.current_url
            except BROWSER_ERRORS as error:
                raise SearchFailed("the browser failed while scrolling: "
                                   f"{first_line(error)}") from error
            page.states = []  # the state remains that of the first tiles
            yield ResultPage(list(new_results(self._results(page, address), seen)), "scroll")

    def _show_more(self):
        """Scroll down and press the "more" button; return whether new tiles have appeared."""
        shown = len(self.driver.find_elements(By.CSS_SELECTOR, TILES))
        time.sleep(random.uniform(*self.pace.delay))
        self.driver.execute_script("window.scrollTo(0, document.body.scrollHeight)")
        for button in self.driver.find_elements(By.CSS_SELECTOR, MORE):
            with contextlib.suppress(WebDriverException):  # hidden, covered, or already replaced
                button.click()
        try:
            WebDriverWait(self.driver, min(10.0, self.pace.page)).until(
                lambda driver: len(driver.find_elements(By.CSS_SELECTOR, TILES)) > shown)
        except TimeoutException:
            return False
        return True

    def _read(self, params):
        """Return the results of a page of the search; raises SearchFailed."""
        address = f"{self.url}?{urlencode(params)}"
        return self._results(Page(self._load(address)), address)

    def _results(self, page, address):
        """Return the results of a `Page`; save it and raise ChangedMarkup if it is not known."""
        try:
            return read_page(page)
        # all but the first: known keys with other values
        except (ChangedMarkup, LookupError, TypeError, AttributeError):
            file = f"{time.strftime('%Y%m%d_%H%M%S')}.html"
            path = Path(self.folder) / "changed_markup" / file
            write_text(path, f"<!-- {address} -->\n{page.text}")
            raise ChangedMarkup(f"changed markup: no results can be read at {address}; the page is "
                                f"saved as {path} for a bug report") from None

    # ---- the browser ----

    def _load(self, address):
        """Return the HTML of an address, after retries; raises SearchFailed."""
        try:
            return retry(lambda: self._load_once(address), ATTEMPTS)
        except Failed as error:
            raise SiteFailed(f"network error: {error} at {address}") from None

    def _load_once(self, address):
        """Return the HTML of an address once it shows results, or what it shows in the end."""
        pause = random.uniform(*self.pace.delay)
        time.sleep(max(0.0, self.last_page + pause - time.monotonic()))
        try:
            driver = self._browser()
            driver.get(address)
            if fault := self._fault():
                raise Failed(fault)
            self._wait_until_ready()
            if Page(driver.page_source).captcha:
                self._wait_for_person()
            self._answer_consent()
            return driver.page_source
        except TimeoutException:
            raise Failed(f"no response in {self.pace.page:g} s") from None
        except BROWSER_ERRORS as error:
            if not self._alive():
                self.close()  # the next attempt opens another one
            raise Failed(first_line(error)) from None
        finally:
            self.last_page = time.monotonic()

    def _browser(self):
        """Return the driver of the one browser, opened at the first call."""
        if self.driver is None:
            try:
                self.driver = self.open_browser()
            except BROWSER_ERRORS as error:
                raise SourceStopped(
                    f"the browser does not start: {first_line(error)}; name an installed one with "
                    f"--browser ({', '.join(BROWSERS)}) or a Selenium Grid with "
                    "--grid_url") from error
            self.driver.set_page_load_timeout(self.pace.page)
        return self.driver

    def _fault(self):
        """Return what is wrong with the whole page: not shown by the browser, an HTTP status."""
        address, status = self.driver.execute_script(
            "return [document.URL, performance.getEntriesByType('navigation')[0]?.responseStatus]")
        if not address.startswith("http"):
            return "the browser cannot show it"
        if is_transient(status or 0) and not Page(self.driver.page_source).captcha:
            return f"HTTP {status}"
        return ""

    def _alive(self):
        try:
            return bool(self.driver and self.driver.window_handles)
        except BROWSER_ERRORS:
            return False

    def _wait_until_ready(self):
        """Wait until the page has one of the known elements, or the time is up."""
        with contextlib.suppress(TimeoutException):
            WebDriverWait(self.driver, self.pace.page, 0.2).until(
                lambda driver: driver.find_elements(By.CSS_SELECTOR, READY))

    def _wait_for_person(self):
        """Let the person at the window solve a captcha; without a window, stop."""
        if not self.pace.captcha:
            raise SourceStopped("captcha: Yandex asks whether this is a robot; continue in some "
                                "hours, or now with --no-headless and solve it in the window")
        print(f"captcha: please solve it in the browser window within {self.pace.captcha:g} s",
              flush=True)
        try:
            WebDriverWait(self.driver, self.pace.captcha, 1.0).until(
                lambda driver: not Page(driver.page_source).captcha)
        except TimeoutException:
            raise SourceStopped(
                f"captcha: not solved within {self.pace.captcha:g} s") from None
        self._wait_until_ready()

    def _answer_consent(self):
        """Close a consent banner, with "essential only" where that is offered."""
        if not Page(self.driver.page_source).consent:
            return
        for selector in CONSENT:
            for button in self.driver.find_elements(By.CSS_SELECTOR, selector):
                with contextlib.suppress(WebDriverException):  # hidden
                    button.click()
                    print("consent: the banner of Yandex is closed", flush=True)
                    self._wait_until_ready()
                    return

"""Yandex Images through a real browser: photographs by name and photographs similar to one.

Captcha, consent banner, nothing found, changed markup and network error are told apart and named.
"""
import contextlib
import random
import re
import shutil
import time
from pathlib import Path
from urllib.parse import urlencode

from selenium import webdriver
from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from urllib3.exceptions import HTTPError

import config
from dataset_preparation.parsing.parsing_utils import SearchFailed, SourceStopped, require_known
from dataset_preparation.parsing.safe_download import RETRIED
from dataset_preparation.parsing.yandex_pages import ChangedMarkup, Page, fresh, is_cached, read_page
from utils import write_text

BROWSER_ERRORS = (WebDriverException, HTTPError, OSError)
PAGES = 50  # Yandex shows no more
ATTEMPTS = 3  # per page, when the network fails
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


def build_source(web):
    """Return the source as the settings describe it; `web` is not needed, the browser fetches the pages."""
    require_known("BROWSER", [config.BROWSER], BROWSERS)
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
    path = shutil.which(driver)  # None: Selenium Manager finds or downloads one
    return browser(options=options, service=service_class(executable_path=path))


def first_line(error):
    """Return what a browser's error says, without its stack."""
    return (str(getattr(error, "msg", None) or error) or type(error).__name__).splitlines()[0]


class YandexImages:
    """Yields results page by page; see `parsing.SOURCES` for what a source must offer.

    One browser for all searches, opened at the first. A captcha stops the source, or waits `captcha_seconds` for the
    person at the window; it is never worked around.
    """

    def __init__(self, open_browser, url, filters, delay, page_seconds, captcha_seconds, folder):
        self.open_browser, self.url, self.delay, self.page_seconds = open_browser, url, delay, page_seconds
        self.filters = self.terms = {name: value for name, value in filters.items() if value}
        self.captcha_seconds, self.folder, self.driver, self.note, self.asked = captcha_seconds, folder, None, "", 0.0

    def close(self):
        """Close the browser."""
        if self.driver is not None:
            with contextlib.suppress(*BROWSER_ERRORS):  # it may be gone already
                self.driver.quit()
            self.driver = None

    def search(self, name):
        """Yield the results of a name, its spelling uncorrected."""
        yield from self._turn_pages({"text": name, "nomisspell": 1, "noreask": 1, **self.filters}, {})

    def similar(self, row):
        """Yield results that look like a found row: first of the overview, then page by page.

        Yandex must load the picture itself; where its site does not let it, Yandex's own copy is asked for.
        """
        copies = [address for address in row["fallbacks"].split() if is_cached(address)]
        for address in (row["url"], *copies[:1]):
            params, seen = {"rpt": "imageview", "url": address}, {}
            if not self.filters:  # the overview knows none
                yield from fresh(self._read(params), seen)
            if self.filters or seen:
                yield from self._turn_pages({**params, "cbir_page": "similar", **self.filters}, seen)
            if seen:
                return

    def _turn_pages(self, params, seen):
        """Yield, page by page, what is not among the `seen` results (address: result, added to)."""
        for number in range(PAGES):
            before = len(seen)
            try:
                results = self._read({**params, "p": number})
            except ChangedMarkup as error:
                if number == 0:
                    raise
                results, self.note = True, str(error)
            else:
                yield from fresh(results, seen)
            if not results:
                return
            if len(seen) == before and number:  # it does not turn pages by `p`
                try:
                    yield from self._scroll(params, seen)
                except BROWSER_ERRORS as error:
                    raise SearchFailed(f"the browser failed while scrolling: {first_line(error)}") from error
                return

    def _scroll(self, params, seen):
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
            yield from fresh(self._results(page, self.driver.current_url), seen)

    def _read(self, params):
        """Return the results of a page of the search; raises SearchFailed."""
        address = f"{self.url}?{urlencode(params)}"
        return self._results(Page(self._load(address)), address)

    def _results(self, page, address):
        """Return the results of a `Page`; saves it and raises ChangedMarkup where its markup is not known."""
        try:
            return read_page(page)
        except (ChangedMarkup, LookupError, TypeError, AttributeError):  # the latter: known keys, other values
            path = Path(self.folder) / "changed_markup" / f"{time.strftime('%Y%m%d_%H%M%S')}.html"
            write_text(path, f"<!-- {address} -->\n{page.text}")
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
                    self._wait_until_ready()
                    if Page(driver.page_source).captcha:
                        self._wait_for_person()
                    self._answer_consent()
                    return driver.page_source
            except TimeoutException:
                reason = f"no answer in {self.page_seconds:g} s"
            except BROWSER_ERRORS as error:
                reason = first_line(error)
                if not self._alive():
                    self.close()  # the next attempt opens another
            self.asked = time.monotonic() + 2.0 ** attempt
        raise SearchFailed(f"network error: {reason} at {address}")

    def _browser(self):
        """Return the driver of the one browser, opening it at the first call."""
        if self.driver is None:
            try:
                self.driver = self.open_browser()
            except BROWSER_ERRORS as error:
                raise SourceStopped(f"the browser does not start: {first_line(error)}; name one that is installed with "
                                    f"--browser ({', '.join(BROWSERS)}) or a Selenium Grid with --grid_url") from error
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
        except BROWSER_ERRORS:
            return False

    def _wait_until_ready(self):
        """Wait until the page has one of the elements; what it has instead is told from its HTML."""
        with contextlib.suppress(TimeoutException):
            WebDriverWait(self.driver, self.page_seconds, 0.2).until(
                lambda driver: driver.find_elements(By.CSS_SELECTOR, READY))

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
        self._wait_until_ready()

    def _answer_consent(self):
        """Answer a consent banner, with "essential only" where that is offered."""
        if not Page(self.driver.page_source).consent:
            return
        for selector in CONSENT:
            for button in self.driver.find_elements(By.CSS_SELECTOR, selector):
                with contextlib.suppress(WebDriverException):  # hidden
                    button.click()
                    print("consent: the banner of Yandex is answered", flush=True)
                    self._wait_until_ready()
                    return

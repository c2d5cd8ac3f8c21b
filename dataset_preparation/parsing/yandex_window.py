"""The browser window with pages of Yandex Images: front doors, captcha, banner, errors."""
import contextlib
import random
import re
import time
from typing import NamedTuple
from urllib.parse import parse_qs, urlencode, urlsplit

from selenium.common.exceptions import TimeoutException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from dataset_preparation.parsing.browser import (
    BROWSER_ERRORS,
    close_browser,
    first_line,
    open_browser,
    proxy_address,
    remedy,
    require_trusted,
)
from dataset_preparation.parsing.connections import BUSY_WAIT, Busy, Failed, Offline, Refused
from dataset_preparation.parsing.safe_download import Patience, is_transient, retry
from dataset_preparation.parsing.sources import SearchFailed, SiteFailed, SourceStopped
from dataset_preparation.parsing.stopping import deferred_stop
from dataset_preparation.parsing.yandex_pages import Page
from utils import warn

ATTEMPTS = 3  # per page, when the network fails
# every known page has one of these: results in two markups, no results, captcha
READY = ("[data-state*=serpList], [data-state*=cbir], a[class*=ContentImage-Cover], "
         "a[class*=CbirSimilar], [class*=EmptySearchResults], form[action*=checkcaptcha], "
         ".form__captcha")
TILES = "a[class*=ContentImage-Cover]"
MORE = "button[class*=FetchListButton-Button], [class*=FetchListButton] button"
CONSENT = (".gdpr-popup-v3-button_id_mandatory", "#gdpr-popup-v3-button-mandatory",
           "#gdpr-popup-v3-button-all")  # "essential only" comes first
OFFLINE = re.compile(  # in the errors of Chromium and Firefox
    r"ERR_(NAME_NOT_RESOLVED|INTERNET_DISCONNECTED|CONNECTION_|ADDRESS_UNREACHABLE|NETWORK_|PROXY_)"
    r"|e=(dnsNotFound|netReset|netInterrupt|netTimeout|netOffline|connectionFailure|proxy)")


class Pace(NamedTuple):
    """Waiting times in seconds."""

    delay: tuple  # between two pages: drawn at random between these limits
    page: float  # for a page to show results
    captcha: float  # for a person to solve a captcha, 0 without a window
    patience: float = 0.0  # for a site that is unreachable or busy
    busy: float = BUSY_WAIT  # the first time it is busy; a browser does not show Retry-After


class NoPage(Refused):
    """An address without a page (HTTP 404): the one after the last."""


class Elsewhere(Failed):
    """A front door that redirects and loses the search."""


class Window:
    """The browser window for all searches, opened at the first one.

    Of the `urls`, Yandex's front doors, the first is used, or the next if it is unreachable or
    redirects elsewhere. `browser` is a `BrowserChoice`.
    """

    def __init__(self, browser, urls, pace):
        self.browser, self.urls, self.pace = browser, list(urls), pace
        self.driver, self.patience = None, Patience(pace.patience)
        self.last_page = 0.0  # time.monotonic()

    def close(self):
        """Close the browser."""
        driver, self.driver = self.driver, None
        if driver is not None:
            with deferred_stop():
                close_browser(driver)

    def prefer(self, url):
        """Use this front door first."""
        self.urls.sort(key=lambda other: other != url)

    def shown(self):
        """Return (the current `Page`, its address); raise SiteFailed."""
        try:
            return Page(self.driver.page_source), self.driver.current_url
        except BROWSER_ERRORS as error:
            raise SiteFailed(f"the browser failed: {first_line(error)}") from None

    def load(self, params, urls=()):
        """Return (`Page`, its address) from one of `urls`; raises NoPage and SearchFailed."""
        try:
            return retry(lambda: self._load_from_a_door(params, urls or self.urls), ATTEMPTS,
                         patience=None if urls else self.patience)
        except Failed as error:
            raise SiteFailed(f"network error: {error}") from None
        except NoPage:
            raise
        except Refused as error:
            raise SearchFailed(str(error)) from None

    def _load_from_a_door(self, params, urls):
        """Return (Page, its address) from the first front door that works."""
        failures = {}
        for url in list(urls):
            address = f"{url}?{urlencode(params)}"
            try:
                page = Page(self._load_once(address, params))
            except (Offline, Elsewhere) as error:
                failures[url] = error
                continue
            if failures:
                for door, error in failures.items():
                    warn(f"{door}: {error}; {url} is used")
                self.prefer(url)
            return page, address
        raise failures[urls[0]]

    def _load_once(self, address, params):
        """Return the HTML of an address once it shows results, or when the time is up."""
        pause = random.uniform(*self.pace.delay)
        time.sleep(max(0.0, self.last_page + pause - time.monotonic()))
        try:
            driver = self._open_driver()
            driver.get(address)
            self._require_page(address)
            if not Page(driver.page_source).captcha:
                self._require_search(address, params)
            self._wait_until_ready()
            if Page(driver.page_source).captcha:
                self._wait_for_person()
            self._answer_consent()
            return driver.page_source
        except TimeoutException:
            raise Failed(f"no response in {self.pace.page:g} s at {address}") from None
        except BROWSER_ERRORS as error:
            require_trusted(error)
            if not self._alive():
                self.close()  # the next attempt opens another one
            line = first_line(error)
            raise (Offline if OFFLINE.search(line) else Failed)(f"{line} at {address}") from None
        finally:
            self.last_page = time.monotonic()

    def _open_driver(self):
        """Return the driver of the browser, opened at the first call."""
        if self.driver is None:
            try:
                with deferred_stop():
                    self.driver = open_browser(self.browser)
            except BROWSER_ERRORS as error:
                raise SourceStopped(
                    f"the browser {self.browser.name} does not start: {first_line(error)}; "
                    f"{remedy(self.browser, error)}") from error
            self.driver.set_page_load_timeout(self.pace.page)
        return self.driver

    def _require_page(self, address):
        """Raise Failed, NoPage or Refused unless the browser shows a page or a captcha."""
        shown, status = self.driver.execute_script(
            "return [document.URL, performance.getEntriesByType('navigation')[0]?.responseStatus]")
        if not shown.startswith("http"):
            require_trusted(self.driver.page_source)
            proxy = proxy_address(self.browser.proxies) and "; does the proxy want a password?"
            raise Failed(f"the browser cannot show {address}{proxy}")
        if (status or 0) < 400 or Page(self.driver.page_source).captcha:
            return
        reason = f"HTTP {status} at {address}"
        if status == 429:
            raise Busy(reason, self.pace.busy)
        raise (NoPage if status == 404 else Failed if is_transient(status) else Refused)(reason)

    def _require_search(self, address, params):
        """Raise Elsewhere if the search was lost: some front doors redirect to others."""
        shown = self.driver.current_url
        query = parse_qs(urlsplit(shown).query)
        if "text" in params:
            kept = " ".join(query.get("text", [""])[0].split()).lower() == params["text"].lower()
        else:  # Yandex replaces the photograph's address by that of its copy
            kept = "url" in query or "cbir_id" in query
        if not kept:
            raise Elsewhere(f"{address} leads to {shown}, without the search")

    def _alive(self):
        try:
            return bool(self.driver and self.driver.window_handles)
        except BROWSER_ERRORS:
            return False

    def _wait_until_ready(self):
        """Wait until the page has a known element, or the time is up."""
        with contextlib.suppress(TimeoutException):
            WebDriverWait(self.driver, self.pace.page, 0.2).until(
                lambda driver: driver.find_elements(By.CSS_SELECTOR, READY))

    def _wait_for_person(self):
        """Let a person solve a captcha in the window; without a window, raise SourceStopped."""
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
        """Close a consent banner, if possible with "essential only"."""
        if not Page(self.driver.page_source).consent:
            return
        for selector in CONSENT:
            for button in self.driver.find_elements(By.CSS_SELECTOR, selector):
                with contextlib.suppress(WebDriverException):  # hidden
                    button.click()
                    print("consent: the banner of Yandex is closed", flush=True)
                    self._wait_until_ready()
                    return

    def show_more(self):
        """Scroll down and press the "more" button; return whether new tiles appeared."""
        try:
            shown = len(self.driver.find_elements(By.CSS_SELECTOR, TILES))
            time.sleep(random.uniform(*self.pace.delay))
            self.driver.execute_script("window.scrollTo(0, document.body.scrollHeight)")
            for button in self.driver.find_elements(By.CSS_SELECTOR, MORE):
                with contextlib.suppress(WebDriverException):  # hidden, or already replaced
                    button.click()
            with contextlib.suppress(TimeoutException):  # only this one means the end
                return WebDriverWait(self.driver, min(10.0, self.pace.page)).until(
                    lambda driver: len(driver.find_elements(By.CSS_SELECTOR, TILES)) > shown)
        except BROWSER_ERRORS as error:
            raise SearchFailed(
                f"the browser failed while scrolling: {first_line(error)}") from error
        return False

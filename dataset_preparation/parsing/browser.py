"""A real browser for pages that need one: start it, explain why it does not start, end it."""
import contextlib
import os
import re
import shutil
import signal
import sys
import threading
from typing import NamedTuple
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import InsecureCertificateException, WebDriverException
from selenium.webdriver.common.proxy import Proxy
from urllib3.exceptions import HTTPError

from dataset_preparation.parsing.sources import SourceStopped
from utils import InputError, warn

BROWSER_ERRORS = (WebDriverException, HTTPError, OSError)
# At every start Chromium looks up Google's servers, for updates of itself and its components and
# for accounts. Firefox was not measured; geckodriver's profile should prevent it there.
NO_REPORTS = ("--disable-component-update", "--host-resolver-rules=" + ", ".join(
    f"MAP *.{name} ~NOTFOUND" for name in ("google.com", "googleapis.com", "gvt1.com")))
CLOSE_SECONDS = 1.5  # before a browser that does not end is killed


class BrowserKind(NamedTuple):
    """What Selenium needs to start one kind of browser."""

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


class BrowserChoice(NamedTuple):
    """Which browser to start, and how."""

    name: str  # of BROWSERS
    arguments: tuple = ()
    headless: bool = True
    grid_url: str = ""  # of a Selenium Grid; "" = on this machine
    proxies: dict = {}  # as `connections.NetworkAccess.proxies` gives them


def open_browser(choice):
    """Return the driver of a new browser with a temporary profile; raises BROWSER_ERRORS."""
    kind, options = BROWSERS[choice.name], selenium_options(choice)
    if choice.grid_url:
        return webdriver.Remote(command_executor=choice.grid_url, options=options)
    exclude_localhost_from_proxies()
    path = shutil.which(kind.driver_program)  # None: Selenium Manager finds or downloads one
    try:
        return kind.driver(options=options, service=kind.service(executable_path=path))
    except WebDriverException as error:
        if not (path and re.search(r"Status code was|only supports|Can not connect", str(error))):
            raise
        warn(f"{path} does not start or does not fit the browser ({first_line(error)}); Selenium "
             "Manager is asked for another one")
        os.environ["SE_SKIP_DRIVER_IN_PATH"] = "true"
        return kind.driver(options=selenium_options(choice), service=kind.service())


def selenium_options(choice):
    """Return Selenium's options for a browser."""
    kind = BROWSERS[choice.name]
    options = kind.options()
    options.page_load_strategy = "eager"
    options.accept_insecure_certs = False  # with Firefox, Selenium's default is True
    silent = NO_REPORTS if kind.driver is webdriver.Chrome else ()
    for argument in (*silent, *choice.arguments, *([kind.no_window] if choice.headless else [])):
        options.add_argument(argument)
    # Photographs are downloaded later, in full size. With a window, a person must see a captcha's.
    if choice.headless and choice.name == "firefox":
        options.set_preference("permissions.default.image", 2)
    elif choice.headless:
        options.add_argument("--blink-settings=imagesEnabled=false")
    if program := next(filter(None, map(shutil.which, kind.programs)), None):
        options.binary_location = program
    if proxy := build_proxy(choice.proxies):
        options.proxy = proxy
    return options


def exclude_localhost_from_proxies():
    """Exclude localhost from the proxies of the environment: Selenium's driver runs there."""
    hosts = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if "localhost" not in hosts.split(","):
        hosts = ",".join(filter(None, (hosts, "localhost")))
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = hosts


def build_proxy(proxies):
    """Return Selenium's `Proxy` for proxies, None for the browser's default."""
    if proxies.get("no_proxy") == "*":
        return Proxy({"proxyType": "direct"})
    address = proxy_address(proxies)
    if not address:
        return None
    os.environ.setdefault("SE_PROXY", address)
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme.startswith("socks"):
        return Proxy({"proxyType": "manual", "socksProxy": host, "socksVersion": 5})
    return Proxy({"proxyType": "manual", "httpProxy": host, "sslProxy": host})


def proxy_address(proxies):
    """Return the address of the proxy that a browser uses, "" for none."""
    return proxies.get("https") or proxies.get("http") or proxies.get("all") or ""


def require_no_password(proxies):
    """Raise InputError for a proxy with name and password, which browsers ask a person for."""
    if "@" in urlsplit(proxy_address(proxies)).netloc:
        raise InputError(
            "yandex: a browser cannot be given the name and password of a proxy; let a proxy of "
            "this machine add them, such as cntlm or px, and give its address with --proxy, or "
            "collect with a --source that needs no browser (inaturalist, gbif, commons)")


def require_trusted(error):
    """Raise SourceStopped if a browser's error, or its page, is about certificates."""
    if isinstance(error, InsecureCertificateException) or "ERR_CERT_" in str(error):
        raise SourceStopped(
            "the browser does not trust the certificate of the site; it does not read --ca_bundle. "
            "If a firewall of yours signs connections, add its certificate to those of the system "
            "(Chromium on Linux: certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n firewall -i FILE; "
            "Firefox: the policy Certificates, Install)")


# ---- why it does not start ----

def first_line(error):
    """Return the message of a browser's error without its stack trace and link."""
    line = (str(getattr(error, "msg", None) or error) or type(error).__name__).splitlines()[0]
    return line.split("; For documentation")[0]


def remedy(choice, error):
    """Return advice for a browser that does not start."""
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    no_display = sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    if choice.grid_url:
        return f"is there a Selenium Grid at {choice.grid_url} (GRID_URL), and is it running?"
    if not choice.headless and no_display:
        return "there is no display for its window: run it with --headless, or in a desktop session"
    if as_root and choice.name != "firefox" and "--no-sandbox" not in choice.arguments:
        return ("as root it starts only without its sandbox: run as another user, or give "
                "--browser_arguments \"('--no-sandbox',)\"")
    if "obtain driver" in str(error):
        return (f"{BROWSERS[choice.name].driver_program} is not installed and cannot be downloaded "
                "from here: install it, or name another browser with --browser "
                f"({', '.join(BROWSERS)})")
    if re.search(r"only supports|version", str(error)):
        return (f"browser and {BROWSERS[choice.name].driver_program} are of different versions: "
                "update both, or remove the driver, and Selenium finds one that fits")
    return (f"is it installed? Name an installed one with --browser ({', '.join(BROWSERS)}) or a "
            "Selenium Grid with --grid_url")


# ---- how it ends ----

def close_browser(driver):
    """End a browser and its driver; kill them if they have not ended within CLOSE_SECONDS."""
    process = driver.capabilities.get("goog:processID") or driver.capabilities.get("moz:processID")

    def quit_driver():
        with contextlib.suppress(*BROWSER_ERRORS):  # it may have ended already
            driver.quit()
    quitting = threading.Thread(target=quit_driver, daemon=True)
    quitting.start()
    quitting.join(CLOSE_SECONDS)
    if not (quitting.is_alive() and hasattr(driver, "service")):  # none: it is on a Grid
        return
    with contextlib.suppress(OSError):  # it has ended
        if process:
            os.kill(process, getattr(signal, "SIGKILL", signal.SIGTERM))
    with contextlib.suppress(OSError):
        driver.service.process.kill()
    quitting.join(CLOSE_SECONDS)

"""The review page in Chromium: a large table, a screen, what a person presses and reads."""
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from benchmarks.review import draw_rows
from dataset_preparation.cleaning import review_views as rw
from tests.conftest import NAMES, draw, jpeg
from tests.reviewing import rows_of
from utils import write_table

TABS = ("sheet", "duplicates", "conflicts", "borderline", "rejected")


def fill_up(folder, size):
    """Fill the table of a cleaned folder up to `size` rows; the first pages have photographs."""
    rows = list(rows_of(folder).values())
    rows += [dict.fromkeys(rows[0], "") | row for row in draw_rows(size - len(rows), NAMES)]
    write_table(folder / "cleaned/cleaned.csv", rows[0].keys(), rows)
    picture = jpeg(draw(5, (342, 256)))
    for blocks in rw.arrange(rows).values():
        for row in (row for block in blocks[:2 * rw.PER_PAGE] for row in block):
            path = folder / "cleaned/others" / row["label_class"] / f"{row['sha256'][:16]}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() and row["width"]:
                path.write_bytes(picture)
    return folder


def emulate(browser, width, height, phone):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": height, "deviceScaleFactor": 1,
                             "mobile": phone})
    browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})


def wait(browser, condition):
    """Return what a condition (a script that returns something true) gives, once it does."""
    return WebDriverWait(browser,
                         60).until(lambda driver: driver.execute_script(f"return {condition}"))


def press(browser, *keys):
    """Press keys as a person does and wait until all is saved."""
    ActionChains(browser).send_keys(*keys).perform()
    wait(browser,
         "unsaved.length === 0 && document.getElementById('saved').textContent === '✓ all saved'")


def tab_to(screen, condition):
    """Press Tab until what has the focus fulfils a condition about `here`."""
    for _ in range(80):
        ActionChains(screen).send_keys(Keys.TAB).perform()
        if screen.execute_script(f"const here = document.activeElement; return {condition}"):
            return
    raise AssertionError(f"Tab does not reach what fulfils {condition}")


def show(browser, tab):
    """Open a view by its tab and wait for its photographs; return how many there are."""
    browser.execute_script("document.getElementById('tabs').children[arguments[0]].click()",
                           TABS.index(tab))
    wait(browser, f"state.view === '{tab}' && cards.length")
    browser.execute_async_script(
        "Promise.all([...document.images].filter(one => one.src).map(one => one.decode()"
                                 ".catch(() => 0))).then(arguments[0])")
    return browser.execute_script("return cards.length")


def said(browser, one):
    return browser.find_element("id", one).text

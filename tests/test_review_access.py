"""The review page for everyone, in a real Chromium: axe-core, keyboard alone, whole pictures."""
import shutil
import subprocess
import tarfile

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.conftest import NAMES, draw, jpeg
from tests.review_browser import TABS, emulate, fill_up, press, show, tab_to, wait
from tests.reviewing import decisions, files, make_cleaned, reviewing, script

AXE = "axe-core@4.14.1"
FOUND = """const done = arguments[0];
axe.run().then(({violations}) => done(violations.map(one => `${one.id}: ${one.nodes.length} x `
    + one.nodes.slice(0, 3).map(node => node.html.slice(0, 160) + " "
    + (node.any[0]?.message || "")).join(" | "))));"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of 400 rows with photographs, those of the first class three times as wide."""
    folder = fill_up(make_cleaned(tmp_path_factory.mktemp("cleaned")), 400)
    wide = jpeg(draw(6, (768, 256)))
    for path in (folder / "cleaned/others" / NAMES[0]).iterdir():
        path.write_bytes(wide)
    return folder


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """The source text of axe-core."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("axe")
    if not npm:
        pytest.skip("npm is not installed; it fetches axe-core")
    packed = subprocess.run([npm, "pack", AXE], cwd=folder, capture_output=True, text=True,
                            timeout=120)
    if packed.returncode:
        pytest.skip(f"npm cannot fetch axe-core: {packed.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(folder, screen, axe, scheme):
    screen.execute_cdp_cmd("Emulation.setEmulatedMedia", {
        "features": [{"name": "prefers-color-scheme", "value": scheme}]})
    with script(folder) as (_, url):
        screen.get(url)
        wait(screen, "cards.length")
        screen.execute_script(axe)
        found = {}
        for tab in TABS:
            show(screen, tab)
            found[tab] = screen.execute_async_script(FOUND)
        show(screen, "sheet")
        for name, key in (("palette", "m"), ("help", "?"), ("zoom", Keys.SPACE)):
            ActionChains(screen).send_keys(key).perform()
            wait(screen, f"!document.getElementById('{name}').hidden")
            found[name] = screen.execute_async_script(FOUND)
            ActionChains(screen).send_keys(Keys.ESCAPE).perform()
            wait(screen, f"document.getElementById('{name}').hidden")
        emulate(screen, 390, 800, phone=True)
        found["phone"] = screen.execute_async_script(FOUND)
        emulate(screen, 1600, 1000, phone=False)
    screen.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert {name: one for name, one in found.items() if one} == {}


@pytest.mark.browser
def test_everything_is_done_by_keyboard_alone(folder, screen):
    folder = shutil.copytree(folder, folder.parent / "by_keyboard")
    with script(folder) as (_, url):
        screen.get(url)
        wait(screen, "cards.length")
        for tab in (*TABS[1:], TABS[0]):  # every view
            tab_to(screen, "here.parentNode.id === 'tabs'")
            while not screen.execute_script("const here = document.activeElement;"
                                            f"return [...here.parentNode.children].indexOf(here)"
                                            f" === {TABS.index(tab)}"):
                ActionChains(screen).send_keys(Keys.TAB).perform()
            press(screen, Keys.ENTER)
            wait(screen, f"state.view === '{tab}' && cards.length")
            tab_to(screen, f"here.closest('aside') && here.firstChild.textContent === '{NAMES[1]}'")
            press(screen, Keys.ENTER)  # the class, in every view
            wait(screen, f"state.name === '{NAMES[1]}' && cards.length")
            assert screen.execute_script(
                "return blocks.every(block => block.some(photo => photo.label_class === "
                f"'{NAMES[1]}'))")
        assert decisions(folder) == []
        show(screen, "conflicts")
        tab_to(screen, "here.textContent.startsWith('Take ')")
        press(screen, Keys.ENTER)
        assert [row["action"] for row in decisions(folder)] == ["move"]
        for button in ("whole", "larger", "smaller", "next", "back", "asking", "undo"):
            enabled = screen.execute_script(
                f"const one = document.getElementById('{button}');"
                "return Boolean(one.offsetParent) && !one.disabled")
            if enabled:
                tab_to(screen, f"here.id === '{button}'")


@pytest.mark.browser
def test_whole_photographs_on_demand_and_no_number_cut_off(folder, screen):
    fit = "getComputedStyle(cards[0].node.querySelector('img')).objectFit"
    with script(folder) as (_, url):
        screen.get(url)
        wait(screen, "cards.length")
        show(screen, "sheet")
        assert screen.execute_script(f"return {fit}") == "cover"
        press(screen, "w")
        assert screen.execute_script(f"return {fit}") == "contain"
        screen.refresh()
        wait(screen, "cards.length")
        assert screen.execute_script(f"return {fit}") == "contain"  # remembered
        press(screen, "w")
        assert screen.execute_script(f"return {fit}") == "cover"
        for tab in TABS[1:4]:
            show(screen, tab)
            assert screen.execute_script(
                "return [...document.querySelectorAll('.facts, .facts div')]"
                ".filter(one => one.scrollWidth > one.clientWidth).length") == 0, tab
    assert decisions(folder) == []


def test_every_view_is_filtered_by_class(folder):
    with reviewing(folder) as page:
        views = page.views()
        for view in TABS[1:]:
            for name in NAMES:
                blocks = page.blocks(view, name=name)
                assert all(name in {row["label_class"] for row in block} for block in blocks)
                wanted = [block for block in page.blocks(view)
                          if name in {row["label_class"] for row in block}]
                assert files(blocks) == files(wanted)
                assert views[view, name]["total"] == len(blocks) > 0

"""Keys of the review page in a real Chromium: they act on what has the focus; bulk keys skip."""
import shutil

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.conftest import NAMES, draw, jpeg, make_collected
from tests.preparing import clean, label
from tests.review_browser import press, said, show, tab_to, wait
from tests.reviewing import ORIGIN, PLAIN, STOLEN, decisions, rows_of, script
from utils import write_table

OTHER = f"{NAMES[1]}/003.jpg"  # made a borderline pair with PLAIN
FOCUSED = "document.activeElement"


@pytest.fixture
def folder(cleaned_once, tmp_path):
    """A cleaned folder with a label conflict, near-duplicates and a borderline pair."""
    folder = shutil.copytree(cleaned_once, tmp_path / "folder")
    rows = rows_of(folder)
    for file, near in ((PLAIN, OTHER), (OTHER, PLAIN)):
        rows[file].update(near=near, near_alike="0.7")
    write_table(folder / "cleaned/cleaned.csv", rows[PLAIN].keys(), rows.values())
    return folder


def open_page(screen, url, tab="sheet"):
    screen.get(url)
    wait(screen, "cards.length")
    show(screen, tab)


def made(folder):
    return [(row["action"], row["value"]) for row in decisions(folder)]


def press_bulk(screen):
    ActionChains(screen).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    press(screen)


# ---- the focus ----

@pytest.mark.browser
@pytest.mark.parametrize("key", [Keys.ENTER, Keys.SPACE])
def test_enter_and_space_press_the_button_that_has_the_focus(folder, screen, key):
    with script(folder) as (_, url):
        open_page(screen, url)
        tab_to(screen, "here.dataset.action === 'reject'")
        press(screen, key)
        wait(screen, "document.getElementById('message').textContent === 'saved'")
        assert made(folder) == [("reject", "")]
        screen.execute_script("focusCard()")
        wait(screen, "!document.getElementById('undo').disabled")
        tab_to(screen, "here.id === 'undo'")
        press(screen, key)
        wait(screen, "document.getElementById('message').textContent.startsWith('undone')")
        assert [action for action, _ in made(folder)] == ["reject", "undo"]
        tab_to(screen, "here.parentNode.id === 'tabs' && here.textContent.startsWith('Duplicates')")
        press(screen, key)
        wait(screen, "state.view === 'duplicates' && cards.length")
        show(screen, "sheet")
        tab_to(screen, f"here.closest('aside') && here.firstChild.textContent === '{NAMES[1]}'")
        press(screen, key)
        wait(screen, f"state.name === '{NAMES[1]}' && cards.length")
        assert len(made(folder)) == 2  # opening a view or a class decides nothing
        assert screen.execute_script(f"return {FOCUSED} === cards[0].node")
        assert not screen.find_element("id", "zoom").is_displayed()


@pytest.mark.browser
def test_letters_decide_only_where_a_photograph_has_the_focus(folder, screen):
    with script(folder) as (_, url):
        open_page(screen, url)
        tab_to(screen, "here.parentNode.id === 'tabs'")
        press(screen, *"kxnp1s")
        assert made(folder) == []
        assert "press Esc" in said(screen, "message")
        press(screen, Keys.ESCAPE, "k")
        assert made(folder) == [("keep", "")]


@pytest.mark.browser
def test_a_key_held_down_decides_once(folder, screen):
    with script(folder) as (_, url):
        open_page(screen, url)
        for repeat in (False, True, True):
            screen.execute_cdp_cmd("Input.dispatchKeyEvent", {
                "type": "keyDown", "key": "k", "code": "KeyK", "text": "k",
                "autoRepeat": repeat})
        press(screen)
        assert made(folder) == [("keep", "")]


# ---- keys that decide about many ----

@pytest.mark.browser
def test_bulk_keys_decide_no_conflict_and_no_borderline_pair(folder, screen):
    rows = rows_of(folder)
    delicate = {rows[file]["sha256"] for file in (STOLEN, ORIGIN, PLAIN, OTHER)}
    with script(folder) as (_, url):
        for tab in ("borderline", "conflicts"):
            open_page(screen, url, tab)
            press_bulk(screen)
            assert made(folder) == []
            assert said(screen, "message").startswith("1 on this page")
        show(screen, "sheet")  # all photographs of all classes
        press(screen, "a", "x")
        assert said(screen, "message").startswith("4 skipped")
        assert not delicate & {row["sha256"] for row in decisions(folder)}
        press(screen, "z")
        wait(screen, "document.getElementById('message').textContent.startsWith('undone')")
        before = len(made(folder))
        press_bulk(screen)
        wait(screen, "document.getElementById('message').textContent.includes('skipped')")
        assert "4 skipped" in said(screen, "message")
        assert {action for action, _ in made(folder)[before:]} == {"keep"}
        assert len(made(folder)) - before == 9
        assert not delicate & {row["sha256"] for row in decisions(folder)}
        show(screen, "conflicts")
        wait(screen, "document.getElementById('count').textContent.startsWith('0 of 1')")


@pytest.mark.browser
def test_keep_the_rest_on_all_sheets_leaves_conflicts_for_review(tmp_path, screen):
    """Five photographs of one class, encoded again under a second name: none ends in train."""
    images = make_collected(tmp_path / "collected", count=12) / "images"
    for i in range(5):
        (images / NAMES[1] / f"copy_{i}.jpg").write_bytes(jpeg(draw(i), quality=70))
    clean(tmp_path)
    with script(tmp_path) as (_, url):
        open_page(screen, url)
        for name in NAMES[:2]:
            screen.execute_async_script("open('sheet', arguments[0]).then(arguments[1])", name)
            press_bulk(screen)
    after = clean(tmp_path)
    waiting = [row for row in after.values() if row["status"] == "review"]
    assert len(waiting) == 10
    labelled = label(tmp_path)
    assert not {row["sha256"] for row in waiting} & {row["sha256"] for row in labelled.values()}


# ---- one picture ----

@pytest.mark.browser
def test_a_borderline_pair_is_called_one_picture(tmp_path, screen):
    """Two pictures no hash joins become near-duplicates, by one key; undo takes it back."""
    make_collected(tmp_path / "collected", count=4)
    rows = clean(tmp_path)
    assert rows[PLAIN]["status"] == rows[OTHER]["status"] == "kept"
    for file, near in ((PLAIN, OTHER), (OTHER, PLAIN)):
        rows[file].update(near=near, near_alike="0.7")
    write_table(tmp_path / "cleaned/cleaned.csv", rows[PLAIN].keys(), rows.values())
    with script(tmp_path) as (_, url):
        open_page(screen, url, "borderline")
        press(screen, "s")
        assert [action for action, _ in made(tmp_path)] == ["duplicate"]
        wait(screen, "document.getElementById('count').textContent.startsWith('1 of 1')")
        press(screen, "z", "s")
    after = clean(tmp_path)
    assert after[PLAIN]["group"] == after[OTHER]["group"] != ""
    assert sorted(after[file]["status"] for file in (PLAIN, OTHER)) == ["duplicate", "kept"]

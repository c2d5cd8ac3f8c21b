"""The review page in a real Chromium, on 50,000 rows and on a phone."""
import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from dataset_preparation.cleaning.decisions import fold
from tests.conftest import NAMES
from tests.preparing import clean
from tests.review_browser import TABS, emulate, fill_up, press, said, show, wait
from tests.reviewing import decisions, make_cleaned, rows_of, script
from utils import write_table

SIZE = 50_000  # rows of the table in the browser


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A cleaned folder with a table of 50,000 rows; the first pages have photographs."""
    return fill_up(make_cleaned(tmp_path_factory.mktemp("large")), SIZE)


@pytest.fixture
def phone(screen):
    """The same as a phone of 390 x 800."""
    emulate(screen, 390, 800, phone=True)
    yield screen
    emulate(screen, 1600, 1000, phone=False)


MARKS = "return cards.slice(0, 4).map(card => card.node.querySelector('.mark')?.className)"


@pytest.mark.browser
def test_the_page_on_50000_rows(large, screen):
    """Every view, decisions by key and mouse, undo, a server killed and restarted, cleaning."""
    rows = rows_of(large)
    assert len(rows) == SIZE
    with script(large) as (process, url):
        screen.get(url)
        wait(screen, "cards.length")
        assert "?token" not in screen.execute_script("return location.href")
        screen.get_log("browser")
        show(screen, "rejected")
        assert show(screen, "sheet") == 100
        assert screen.execute_script("const main = document.getElementById('main');"
                                     # A hundred on a screen
                                     "return main.scrollHeight <= main.clientHeight")
        screen.find_element("xpath", f"//aside//button[b='{NAMES[1]}']").click()
        wait(screen, f"state.name === '{NAMES[1]}' && cards.length")
        first = screen.execute_script("return cards.slice(0, 4).map(card => card.photo.file)")
        press(screen, "k", "x", "m")
        press(screen, "tertia", Keys.ENTER)  # Enter
        assert [row["action"] for row in decisions(large)] == ["keep", "reject", "move"]
        wait(screen, "document.getElementById('count').textContent.startsWith('3 of ')")
        press(screen, "x", "z")  # undone at once
        card = screen.find_elements("css selector", ".card")[3]
        ActionChains(screen).move_to_element(card).perform()
        card.find_element("css selector", ".tools button[title=Reject]").click()
        press(screen)
        made = [(row["action"], row["value"]) for row in decisions(large)]
        assert made[:4] == [("keep", ""), ("reject", ""), ("move", NAMES[2]), ("reject", "")]
        assert (made[4][0], made[5:]) == ("undo", [("reject", "")])
        by_sha = {rows[file]["sha256"]: file for file in first}
        assert [by_sha[row["sha256"]]
                for row in decisions(large) if row["action"] != "undo"] == [*first, first[3]]
        marks = screen.execute_script(MARKS)
        assert marks == ["mark keep", "mark reject", "mark move", "mark reject"]

        for tab, key, action in (("conflicts", Keys.ENTER, "move"),
                                 ("borderline", Keys.ENTER, "not_duplicate"),
                                 ("duplicates", "n", "not_duplicate"), ("rejected", "k", "keep")):
            assert 98 <= show(screen, tab) <= 100
            before = len(decisions(large))
            press(screen, key)
            assert [row["action"] for row in decisions(large)[before:]] == [action], tab
            if tab == "conflicts":  # the same again
                screen.execute_script("point(0)")
                press(screen, key)
                assert said(screen, "message") == "It has that name already."
        assert screen.get_log("browser") == []
        screen.execute_script("decide(Array(10_000).fill(of(cards[0], 'keep')))")
        # What is refused for good does not hold up what follows
        wait(screen, "document.getElementById('saved').textContent === '10,000 refused'")
        assert "larger than 1 MB" in said(screen, "trouble")
        screen.find_element("id", "dismiss").click()
        press(screen)

        process.kill()
        process.wait()
        before = decisions(large)
        screen.execute_script("act('keep')")
        wait(screen, "!document.getElementById('trouble').hidden")
        assert "does not answer" in said(screen, "trouble")
        assert said(screen, "saved") == "1 not saved"
        assert decisions(large) == before
    port = url.split(":")[2].split("/")[0]
    with script(large, "--review_port", port) as (_, again):
        screen.get(again)
        press(screen)
        assert not screen.find_element("id", "trouble").is_displayed()
        assert decisions(large)[:-1] == before
        assert decisions(large)[-1]["action"] == "keep"
        screen.execute_async_script("open('sheet', arguments[0], '', 0).then(arguments[1])",
                                    NAMES[1])
        assert screen.execute_script(MARKS) == marks
    verdicts, after = fold(decisions(large)), clean(large)
    for file in first:
        key = rows[file]["sha256"], rows[file]["class"]
        if key in verdicts.choices:
            assert after[file]["status"] == ("kept" if verdicts.choices[key]["action"] == "keep"
                                             else "rejected")
        assert after[file]["label_class"] == verdicts.moves.get(key, rows[file]["class"])


SMALL_TARGETS = """return [...document.querySelectorAll("button, #palette li")]
    .map(one => [one.getBoundingClientRect(), one])
    .filter(([box]) => box.width && (box.width < 40 || box.height < 40 || box.left < 0
                                     || box.right > innerWidth))
    .map(([box, one]) => one.textContent)"""


@pytest.mark.browser
def test_the_page_on_a_phone(tmp_path, phone):
    """Nothing is wider than the screen, buttons fit a finger, a class and a name are tapped."""
    folder = fill_up(make_cleaned(tmp_path), 400)
    rows = list(rows_of(folder).values())
    for row in rows:
        row["proposal"] = ""  # as where nothing prefers a name
    write_table(folder / "cleaned/cleaned.csv", rows[0].keys(), rows)
    verdicts = "return document.getElementById('verdicts').innerText.split(/\\s*\\n\\s*/)"
    with script(folder) as (_, url):
        phone.get(url)
        wait(phone, "cards.length")
        for tab in TABS:
            show(phone, tab)
            assert phone.execute_script("return document.documentElement.scrollWidth") <= 390
            assert phone.execute_script(SMALL_TARGETS) == [], tab
            assert {"Keep", "Reject", "Move…"} <= set(phone.execute_script(verdicts)), tab
            columns = phone.execute_script(
                "return new Set(cards.map(card => card.node.offsetLeft)).size")
            assert columns == 2, tab
        show(phone, "sheet")
        phone.find_element("id", "pick").click()
        assert phone.execute_script(SMALL_TARGETS) == []
        phone.find_element("xpath", f"//aside//button[b='{NAMES[1]}']").click()
        wait(phone,
             f"state.name === '{NAMES[1]}' "
             f"&& document.getElementById('pick').textContent === '{NAMES[1]}'")
        assert not phone.find_element("id", "side").is_displayed()
        phone.find_element("css selector", "[data-action=reject]").click()
        press(phone)
        phone.find_element("css selector", "[data-action=move]").click()
        assert phone.execute_script(SMALL_TARGETS) == []
        phone.find_element("xpath", f"//li[text()='{NAMES[2]}']").click()
        press(phone)
        show(phone, "conflicts")
        phone.refresh()
        wait(phone, "state.view === 'conflicts' && cards.length")
        phone.find_element("css selector", "[data-action=rest]").click()
        assert "each is decided by itself" in said(phone, "message")
        assert len(decisions(folder)) == 2  # no bulk key decides a conflict
        names = phone.find_elements("css selector", ".block:first-child > header button")
        assert len(names) == 2
        chosen, percent = names[1].text.removeprefix("Take ").split(" (")
        assert percent == "3 %)"  # by the picture, in label_scores.csv
        names[1].click()
        press(phone)
    assert [(row["action"], row["value"]) for row in decisions(folder)] == [
        ("reject", ""), ("move", NAMES[2]), ("move", chosen)]

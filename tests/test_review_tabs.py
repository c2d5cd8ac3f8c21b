"""The review page in a real Chromium when a table, a connection or another tab changes."""
import shutil
from collections import Counter

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

from tests.review_browser import press, said, show, wait
from tests.reviewing import PLAIN, decisions, rows_of, script
from utils import write_table


@pytest.fixture
def folder(cleaned_once, tmp_path):
    return shutil.copytree(cleaned_once, tmp_path / "folder")


def port_of(url):
    return url.split(":")[2].split("/")[0]


def open_tab(screen, url):
    """Open the page in another tab; return its handle."""
    screen.switch_to.new_window("tab")
    screen.get(url)
    wait(screen, "cards.length && tab")
    return screen.current_window_handle


def waiting(screen, count):
    wait(screen, f"document.getElementById('saved').textContent === '{count} not saved'")


@pytest.mark.browser
def test_a_photograph_that_left_the_table_drops_no_other_verdict(folder, screen):
    rows = rows_of(folder)
    with script(folder) as (_, url):
        screen.get(url)
        wait(screen, "cards.length")
        assert show(screen, "sheet") == 13
        write_table(folder / "cleaned/cleaned.csv", rows[PLAIN].keys(),
                    [row for row in rows.values() if row["file"] != PLAIN])
        screen.execute_async_script("refresh().then(arguments[0])")
        ActionChains(screen).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(
            Keys.SHIFT).perform()
        wait(screen, "document.getElementById('saved').textContent === '1 refused'")
        assert PLAIN in said(screen, "trouble")
        assert len(decisions(folder)) == 10  # 13 without it and the two of the label conflict
        screen.find_element("id", "dismiss").click()
        press(screen)


@pytest.mark.browser
def test_tabs_share_what_is_not_saved(folder, screen):
    """Three verdicts in each of two tabs without a server, the first tab closed: six are saved."""
    with script(folder) as (process, url):
        screen.get(url)
        wait(screen, "cards.length")
        first = screen.current_window_handle
        show(screen, "sheet")
        second = open_tab(screen, url)
        screen.execute_script("document.getElementById('tabs').children[0].click()")
        wait(screen, "state.view === 'sheet' && cards.length === 13")
        screen.execute_script("point(6)")
        process.kill()
        process.wait()
        screen.switch_to.window(first)
        ActionChains(screen).send_keys(*"xxx").perform()
        waiting(screen, 3)
        screen.switch_to.window(second)
        ActionChains(screen).send_keys(*"kkk").perform()
        waiting(screen, 6)
        screen.switch_to.window(first)
        waiting(screen, 6)  # each tab says what all tabs have not saved
        screen.close()
        screen.switch_to.window(second)
    assert decisions(folder) == []
    with script(folder, "--review_port", port_of(url)) as (_, again):
        screen.get(again)
        press(screen)
        assert not screen.find_element("id", "trouble").is_displayed()
        made = decisions(folder)
        assert Counter(row["action"] for row in made) == {"reject": 3, "keep": 3}
        assert len({row["sha256"] for row in made}) == 6


@pytest.mark.browser
def test_a_tab_undoes_its_own_verdict_and_shows_those_of_others(folder, screen):
    marks = "cards.map(card => card.node.querySelector('.mark')?.className || '').join()"
    with script(folder) as (_, url):
        screen.get(url)
        wait(screen, "cards.length")
        first = screen.current_window_handle
        show(screen, "sheet")
        press(screen, "x")
        second = open_tab(screen, url)
        screen.execute_script("document.getElementById('tabs').children[0].click()")
        wait(screen, f"state.view === 'sheet' && {marks}.startsWith('mark reject,')")
        screen.execute_script("point(1)")
        press(screen, "k")
        screen.switch_to.window(first)
        wait(screen, f"{marks}.startsWith('mark reject,mark keep,')")
        press(screen, "z")
        wait(screen, f"{marks}.startsWith(',mark keep,')")
        press(screen, "z")  # the other tab's verdict stays
        wait(screen, "document.getElementById('message').textContent === 'Nothing to undo.'")
        screen.switch_to.window(second)
        wait(screen, f"{marks}.startsWith(',mark keep,')")
        assert [row["action"] for row in decisions(folder)] == ["reject", "keep", "undo"]
        screen.close()
        screen.switch_to.window(first)
        screen.execute_async_script("""const done = arguments[0], look = async () =>
            (await otherTabs()).length ? setTimeout(look, 50) : done();
            look();""")  # the browser frees a closed tab's name a moment later
        press(screen, "z")  # nobody else can undo it any more
        wait(screen, f"{marks}.startsWith(',,')")

"""Pages of Yandex Images in every markup known, read without a browser."""
import json
from urllib.parse import parse_qs, urlsplit

import pytest

from dataset_preparation.parsing.addresses import clean_address
from dataset_preparation.parsing.yandex_images_parser import size_filter
from dataset_preparation.parsing.yandex_pages import (
    ChangedMarkup,
    Content,
    Page,
    is_cached,
    make_result,
    read_content,
)
from tests.collecting_server import World
from tests.collecting_yandex import BANNER, captcha_page, search_page, state_element
from tests.conftest import shared


def page(server, **params):
    return Page(search_page(server, params, consented=True))


@pytest.mark.parametrize("markup", ["state", "tiles"])
def test_results_are_read_from_every_markup(server, markup):
    server.world.markup = markup
    results = read_content(page(server, text="Rosa canina")).results
    assert [result["url"] for result in results] == [
        server.photo(f"rosa_canina-{number}") for number in range(30)]
    fallbacks = results[3]["fallbacks"].split()
    thumb = "https://avatars.mds.yandex.net/i?id=rosa_canina-3-images-thumbs&n=13"
    assert fallbacks[-1] == thumb
    if markup == "tiles":
        assert results[3]["title"] == "rosa_canina-3"
        assert results[3]["page"] == ""
    else:
        assert results[3]["page"] == "https://plants.example/rosa_canina-3"
        assert results[3]["width"] == 64
        assert results[3]["title"] == 'rosa_canina-3 photo "in flower" {"a": false}}'
        assert fallbacks[0] == server.photo("rosa_canina-3") + "?copy"
        assert len([address for address in fallbacks if is_cached(address)]) == 2


@pytest.mark.parametrize("markup", ["state", "tiles"])
def test_similar_results_are_read_from_the_overview(server, markup):
    server.world.markup = markup
    results = read_content(page(server, rpt="imageview", url=server.photo("rose"))).results
    assert [result["url"] for result in results] == [
        server.photo(f"rose~{number}") for number in range(10)]


# entries of a new form are not an empty list
NEW_FORM = state_element({"serpList": {"items": {"entities": {"a": {"href": "x"}}}}}, "ImagesApp-1")


def test_empty_changed_and_captcha_pages_are_told_apart(server):
    server.world.unknown = {"Nulla"}
    for markup in ("state", "tiles"):
        server.world.markup = markup
        assert read_content(page(server, text="Nulla")) == Content([])
    server.world.markup = "state"
    server.world.by_image = 0
    assert read_content(page(server, rpt="imageview", url=server.photo("rose"))) == Content([])
    server.world.markup = "broken"
    with pytest.raises(ChangedMarkup):
        read_content(page(server, text="Rosa canina"))
    for text in ("", "<html><body>Bad gateway</body></html>",
                 '<div data-state="{&quot;initialState&quot;: null}">', NEW_FORM):
        with pytest.raises(ChangedMarkup):
            read_content(Page(text))
    assert Page(captcha_page(World(), {"retpath": "/images/search"}).decode()).captcha
    assert not page(server, text="smartcaptcha /checkcaptcha").captcha
    assert Page(BANNER).consent


def test_originals_come_before_copies_and_copies_before_thumbnails():
    cached = "https://avatars.mds.yandex.net/i?id=1_l&n=13"
    originals = [(cached, 4000, 3000), ("http://a.example/s.jpg", 300, 200), (None, 0, 0),
                 ("HTTP://a.example/ö b.jpg#x", 900, 800), ("data:image/gif;base64,R0", 9, 9)]
    thumbnails = ["//avatars.mds.yandex.net/i?id=1&n=13", None]
    assert make_result(originals, thumbnails, None, "A &amp; <b>B</b>") == {
        "url": "http://a.example/%C3%B6%20b.jpg", "width": 900, "height": 800, "page": "",
        "title": "A & B", "fallbacks": f"http://a.example/s.jpg {cached} "
                                       "https://avatars.mds.yandex.net/i?id=1&n=13"}
    with pytest.raises(LookupError):
        make_result([("data:x", 1, 1)], [""], "", "")
    assert not is_cached("https://notyandex.example/a.jpg")
    assert is_cached("https://im0-tub-ru.yandex.net/i?id=2")


def state_page(serp, **more):
    """Return the page of one state."""
    return Page(state_element({"serpList": serp, **more}, "ImagesApp-1"))


def test_the_order_is_that_of_the_keys_else_of_the_positions():
    names = ("c", "a", "b", "d")
    entities = {name: {"origUrl": f"http://x.example/{name}.jpg", "pos": index}
                for index, name in enumerate(names)}

    def order(**items):
        return "".join(result["url"][-5] for result in read_content(state_page({"items": items}))
                       .results)
    assert order(entities=entities, keys=["b", "a", "d", "c"]) == "badc"
    assert order(entities=entities, keys=["b", "gone", 7, None, "b"]) == "bcad"
    assert order(entities=entities) == order(entities=entities, keys=None) == "cabd"
    assert order(entities=dict(reversed(entities.items()))) == "cabd"


@pytest.mark.parametrize("odd", [None, [], 7, "text", True, {}, {"origUrl": 7}])
def test_an_odd_entry_loses_no_other_one(odd):
    sound = {"origUrl": "http://x.example/1.jpg", "viewerData": odd, "snippet": odd, "alt": odd,
             "origWidth": odd, "origHeight": odd, "image": odd, "url": odd, "pos": odd}
    found = read_content(state_page({"items": {"keys": odd, "entities": {"a": odd, "b": sound}}}))
    assert [result["url"] for result in found.results] == ["http://x.example/1.jpg"]
    assert list(found.passed_over.values()) == [1]
    thumbs = [odd, {"linkUrl": "/x?img_url=http%3A%2F%2Fx.example%2F1.jpg", "imageUrl": odd}]
    found = read_content(state_page(odd, cbirSimilar={"thumbs": thumbs}, cbirPreview=odd))
    assert [result["url"] for result in found.results] == ["http://x.example/1.jpg"]


NOTHING = {"items": {"keys": [], "entities": {}}}


def test_end_nothing_filling_and_expired_are_told_apart():
    some = {"items": {"entities": {"a": {"origUrl": "http://x.example/1.jpg"}}}}
    assert read_content(state_page({**some, "navi": {"next": ""}})).is_last
    assert not read_content(state_page({**some, "navi": {"next": "/images/search?p=1"}})).is_last
    assert not read_content(state_page(some)).is_last
    assert not read_content(state_page({**some, "pending": True})).is_filling
    assert read_content(state_page({**NOTHING, "pending": True, "isEmptyPage": True})).is_filling
    assert not read_content(state_page({**NOTHING, "isEmptyPage": True})).is_filling
    pending = {**NOTHING, "pending": True}
    gone = read_content(state_page(pending, cbirPreview={"isCbirEmpty": True,
                                                         "imageExpired": True}))
    assert gone.is_expired and not gone.is_filling
    nothing = read_content(state_page(pending, cbirPreview={"isCbirEmpty": True}))
    assert nothing == Content([])
    thumbs = [{"linkUrl": "/x?img_url=http%3A%2F%2Fx.example%2F1.jpg", "width": 320, "height": 240}]
    shown = read_content(state_page(pending, cbirSimilar={"thumbs": thumbs},
                                 cbirPreview={"imageExpired": True}))
    assert len(shown.results) == 1 and not (shown.is_expired or shown.is_filling)
    assert shown.results[0]["width"] == ""  # that of the thumbnail says nothing of the original


def test_image_sizes_are_words_or_exact_pixels():
    assert size_filter("large") == {"isize": "large"}
    assert size_filter("") == {"isize": ""}
    assert size_filter("1920x1080") == {"isize": "eq", "iw": "1920", "ih": "1080"}


@pytest.mark.photos
def test_real_captures_are_told_apart():
    folder = shared("knowledge") / "captures"
    captcha = Page((folder / "openserp_yandex_captcha.html").read_text("utf-8"))
    assert captcha.captcha
    nothing = Page((folder / "openserp_yandex_websearch_no_results.html").read_text("utf-8"))
    assert nothing.empty and not nothing.captcha
    assert read_content(nothing) == Content([])
    text = json.loads((folder / "serpapi_yandex_text.json").read_text("utf-8"))
    assert sum(is_cached(image["original"]) for image in text["images_results"]) == 28
    reverse = json.loads((folder / "serpapi_yandex_reverse.json").read_text("utf-8"))
    links = [image["link"] for image in reverse["similar_images"]]
    similar = Page("")
    similar.states = [{"cbirSimilar": {"thumbs": [{"linkUrl": link} for link in links]}}]
    assert [result["url"] for result in read_content(similar).results] == [
        clean_address(parse_qs(urlsplit(link).query)["img_url"][0]) for link in links]


@pytest.mark.photos
def test_the_captured_overview_of_2026_is_read():
    page = Page((shared("knowledge") / "captures/yandex_reverse_overview_2026-04.html")
                .read_text("utf-8"))
    content = read_content(page)
    assert len(content.results) == 40 and not content.passed_over
    assert not (content.is_filling or content.is_expired or content.is_last)  # pending, empty
    assert {result["width"] for result in content.results} == {""}
    assert sum(is_cached(result["url"].replace(".example", ".ru"))
               for result in content.results) == 2  # Yandex's own, as on the real page
    page.states = []
    assert [result["url"] for result in read_content(page).results] == [
        result["url"] for result in content.results]

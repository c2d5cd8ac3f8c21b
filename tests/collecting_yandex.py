"""Pages of Yandex Images in every markup known, for the local server of the tests."""
import html
import json
from urllib.parse import quote, urlencode

PER_PAGE = 30  # entities on a page
THUMBS = 40  # similar photographs on the overview


def results_of(server, params):
    """Return (names of all results, index of the first on this page, names on this page)."""
    world = server.world
    if "rpt" in params:
        picture = params["url"].rpartition("/")[2].removesuffix(".jpg")
        count = 0 if "~" in picture or params.get("door") in world.no_similar else world.by_image
        names = [f"{picture}~{number}" for number in range(count)]
    else:
        text = params["text"].lower().replace(" ", "_")
        count = 0 if params["text"] in world.unknown else world.by_name
        names = [f"{text}-{number}" for number in range(count)]
    first = int(params.get("p", 0)) * PER_PAGE if world.turns_pages else 0
    return names, first, names[first:first + PER_PAGE]


def is_past_the_end(server, params):
    """Return whether a page has no results, but an earlier one has: HTTP 404."""
    names, first, shown = results_of(server, params)
    return bool(first and names and not shown)


def entity(server, name, position):
    """Return one entity of the state, with the fields of today's pages in their order."""
    original, copy = server.photo(name), server.photo(name) + "?copy"
    if not server.world.originals:
        original = f"{server.url}/gone/{quote(name)}.jpg"
    viewer_link = urlencode({"pos": position, "img_url": original, "text": "x", "rpt": "simage"})
    title = f'{name} <b>photo</b> &quot;in flower&quot; {{"a": false}}}}'
    thumb = f"//avatars.mds.yandex.net/i?id={name}-images-thumbs&n=13"
    large = f"https://avatars.mds.yandex.net/i?id={name}_l-images-thumbs&n=13"
    return {
        "id": f"id{position}", "pos": position, "origUrl": original, "origWidth": 64,
        "origHeight": 48, "image": thumb, "alt": name, "freshnessCounter": "", "gifLabel": False,
        "url": f"/images/search?{viewer_link}",
        "snippet": {"title": title, "text": "Some <b>words</b> &mdash; and more",
                    "url": f"https://plants.example/{name}", "domain": "plants.example",
                    "hasTitle": True},
        "viewerData": {
            "dups": [{"url": copy, "w": 48, "h": 36, "fileSizeInBytes": 900}],
            "preview": [{"url": large, "w": 640, "h": 480, "fileSizeInBytes": 9000}],
            "thumb": {"url": thumb, "size": {"width": 320, "height": 240}},
            "img_href": original}}


def tile(server, name, position):
    """Return one tile of today's markup."""
    item = entity(server, name, position)
    link = item["url"] if server.world.links else f"/images/viewer/{position}"
    return (f'<div class="SerpItem JustifierRowLayout-Item" id="{item["id"]}">'
            '<div class="SerpItem-Thumb">'
            f'<a class="Link ImagesContentImage-Cover" href="{html.escape(link)}">'
            f'<img class="ImagesContentImage-Image" src="{html.escape(item["image"])}" '
            f'alt="{html.escape(name)}"></a></div></div>')


def fragment(server, params):
    """Return the tiles that a scrolled page requests."""
    names, _, _ = results_of(server, params)
    start = int(params["fragment"])
    return "".join(tile(server, name, position) for position, name in
                   enumerate(names[start:start + PER_PAGE], start))


def state_element(state, name):
    """Return an element that carries a state, as the React pages have it."""
    escaped = html.escape(json.dumps({"initialState": state}))
    return f'<div class="Root" id="{name}" data-state="{escaped}"></div>'


def search_page(server, params, consented):
    """Return a page of results in the world's markup."""
    world = server.world
    names, first, shown = results_of(server, params)
    is_overview = "rpt" in params and params.get("cbir_page") != "similar"
    parts = ['<div data-state="not JSON" class="Root"></div>',
             state_element({"location": "/images/search/", "form": {"text": "serp"}},
                           "HeaderForm")]
    if world.markup == "broken":
        parts.append('<main class="NewList"><section data-v2="1">pictures</section></main>')
    elif is_overview:
        parts.append(overview(server, names))
    elif world.markup == "state":
        parts.append(serp_state(server, shown, first, len(names)))
    if world.markup == "filling":
        parts.append(filling_page(server, shown, first))
    if world.markup in ("state", "tiles") and "rpt" not in params or (
            params.get("cbir_page") == "similar"):
        tiles = [tile(server, name, position) for position, name in enumerate(shown, first)]
        parts.append(f'<div class="SerpList" id="list">{"".join(tiles)}</div>')
    if not shown and world.markup == "tiles":
        parts.append('<div class="EmptySearchResults"><div class="EmptySearchResults-Title">'
                     'nothing</div></div>')
    if not world.turns_pages and len(names) > PER_PAGE:
        parts.append(SCROLLING.replace("ADDRESS", urlencode(params))
                     .replace("TOTAL", str(len(names))))
    if world.consent and not consented:
        parts.append(BANNER)
    return ("<!doctype html><html><head><title>Yandex</title></head>"
            f"<body>{''.join(parts)}</body></html>")


def serp_state(server, shown, first, total):
    """Return the element with the state of a page of results.

    `keys` has their order; the dictionary another, as Yandex promises none. `pos` is not always
    there.
    """
    items = [entity(server, name, position) for position, name in enumerate(shown, first)]
    for item in items[::2]:
        del item["pos"]
    entities = {item["id"]: item for item in reversed(items)}
    is_last = server.world.says_last and first + PER_PAGE >= total
    serp = {"items": {"keys": [item["id"] for item in items], "entities": entities},
            "pending": False, "isEmptyPage": not items, "loadNextState": "idle",
            "navi": {"next": "" if is_last else "/images/search?p=1", "prev": ""}}
    return state_element({"location": "/images/search/", "serpList": serp}, "ImagesApp-1")


def filling_page(server, shown, first):
    """Return a page without results that a script fills after a second and a half, if at all."""
    serp = {"items": {"keys": [], "entities": {}}, "pending": True, "isEmptyPage": True,
            "loadNextState": "finished", "navi": {"next": "/images/search?p=1"}}
    if not server.world.fills:
        return state_element({"serpList": serp}, "ImagesApp-1")
    tiles = json.dumps([tile(server, name, position)
                        for position, name in enumerate(shown, first)])
    script = (f"setTimeout(() => {{document.body.insertAdjacentHTML('beforeend', "
              f"{tiles}.join(''))}}, 1500)").replace("</", "<\\/")
    return state_element({"serpList": serp}, "ImagesApp-1") + f"<script>{script}</script>"


def overview(server, names):
    """Return the overview of a search by image: up to 40 thumbnails, or an empty skeleton."""
    thumbs = []
    for name in names[:THUMBS]:
        link = urlencode({"url": "x", "img_url": server.photo(name), "rpt": "imageview"})
        thumbs.append({"imageUrl": f"//avatars.mds.yandex.net/i?id={name}", "title": name,
                       "width": 320, "height": 240, "linkUrl": f"/images/search?{link}"})
    links = "".join(
        f'<a class="Link CbirSimilarList-Thumb" href="{html.escape(thumb["linkUrl"])}">'
        f'<img class="CbirSimilarList-ThumbImage" src="{html.escape(thumb["imageUrl"])}" alt="">'
        '</a>' for thumb in thumbs)
    if server.world.markup != "state":
        return links or '<div class="EmptySearchResults"></div>'
    # the page of April 2026 says that it is empty and being filled, although it is complete
    serp = {"items": {"keys": [], "entities": {}}, "pending": True, "isEmptyPage": True,
            "loadNextState": "finished", "navi": {"next": "/images/search?rpt=imageview&p=1"}}
    preview = {"cbirId": "1/a", "imageExpired": server.world.expired and not thumbs}
    if not thumbs:
        preview["isCbirEmpty"] = True
    state = {"serpList": serp, "cbirPreview": preview, "cbirSites": {"sites": []},
             "cbirTags": {"tags": []}, "cbirSimilar": {"thumbs": thumbs}}
    return state_element(state, "ImagesApp-2") + links


def captcha_page(world, params):
    """Return a captcha page, HTTP 200 as Yandex sends it."""
    script = "<script>setTimeout(() => document.forms[0].submit(), 1000)</script>"
    return ('<html><head><title>Are you not a robot?</title></head><body>'
            '<form method="GET" action="/checkcaptcha">'
            f'<input type="hidden" name="retpath" value="{html.escape(params["retpath"])}">'
            '<div class="CheckboxCaptcha" data-testid="checkbox-captcha"><input type="submit" '
            'id="js-button" class="CheckboxCaptcha-Button"></div></form>'
            f'{script if world.captcha_solves else ""}</body></html>').encode()


BANNER = """<div class="gdpr-popup-v3-main"
style="position:fixed;inset:0;background:white;z-index:9">
<button class="gdpr-popup-v3-button gdpr-popup-v3-button_id_mandatory"
onclick="document.cookie='consent=1;path=/'; this.parentElement.remove()">Essential only</button>
</div>"""

# the first scroll brings tiles by itself, then the button has to be pressed
SCROLLING = """<div style="height:3000px"></div>
<div class="FetchListButton"><button hidden id="more"
class="Button2 FetchListButton-Button">Show more</button></div>
<script>
let count = document.getElementById("list").children.length, busy = false, scrolled = 0;
async function more() {
  if (busy || count >= TOTAL) return;
  busy = true;
  const response = await fetch("/images/search?ADDRESS&fragment=" + count);
  const tiles = await response.text();
  document.getElementById("list").insertAdjacentHTML("beforeend", tiles);
  count = document.getElementById("list").children.length;
  document.getElementById("more").hidden = false;
  busy = false;
}
addEventListener("scroll", () => { if (scrolled++ == 0) more(); });
document.getElementById("more").addEventListener("click", more);
</script>"""

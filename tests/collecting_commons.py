"""Wikimedia Commons as a local server plays it: the API's queries, continuation, and errors.

Written from https://www.mediawiki.org/wiki/API:Categorymembers, API:Search and API:Imageinfo.
"""
import json
from urllib.parse import parse_qs, urlsplit

from tests.collecting_server import jpeg

LICENSES = {  # License, LicenseShortName, LicenseUrl
    "by-sa": ("cc-by-sa-4.0", "CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0"),
    "cc0": ("cc0", "CC0", "http://creativecommons.org/publicdomain/zero/1.0/deed.en"),
    "pd": ("pd", "Public domain", ""), "gfdl": ("gfdl", "GFDL", "http://www.gnu.org/copyleft/fdl"),
    "none": ("", "", "")}


def file_page(server, number, license_name="by-sa", mime="image/jpeg", size=(4000, 3000), **more):
    """Return a page of a file with what `prop=imageinfo` tells of it."""
    code, short, url = LICENSES[license_name]
    facts = {"License": code, "LicenseShortName": short, "LicenseUrl": url,
             "Artist": f'<a href="//x.example" title="User:U{number}">U{number} &amp; Co</a>',
             "DateTimeOriginal": DATES[number % 3].format(f"20{number % 20:02}",
                                                          f"0{1 + number % 9}"),
             "GPSLatitude": f"{44 + number % 7}.5", "GPSLongitude": "34.1", **more}
    name = f"Rosa_{number}.jpg"
    return {"pageid": number, "ns": 6, "title": f"File:Rosa {number}.jpg", "imageinfo": [{
        "url": f"{server.url}/wikipedia/commons/a/ab/{name}", "mime": mime, "size": 1234567,
        "thumburl": f"{server.url}/wikipedia/commons/thumb/a/ab/{name}/500px-{name}",
        "descriptionurl": f"https://commons.wikimedia.org/wiki/File:{name}",
        "width": size[0], "height": size[1],
        "extmetadata": {key: {"value": value} for key, value in facts.items() if value}}]}


DATES = ("{0}-{1}-11 12:00:00", "{0}:{1}:11 12:00:00",
         '<time class="dtstart" datetime="{0}-{1}-11">11 some month {0}</time>')


class Commons:
    """Lets a `CollectingServer` play Commons at /w; `busy` is how often it asks to wait."""

    def __init__(self, server):
        self.categories = {}  # title -> pages: files and subcategories
        self.texts = {}  # text searched for -> pages
        self.busy, self.agents, self.params = 0, [], []
        inner = server.server.RequestHandlerClass.do_GET

        def answer(handler):
            parts = urlsplit(handler.path)
            if parts.path.startswith("/wikipedia/commons"):
                handler.send(200, {"Content-Type": "image/jpeg"}, jpeg(parts.path))
            elif parts.path != "/w/api.php":
                inner(handler)
            else:
                with server.lock:
                    server.log.append((0, handler.path))
                self.agents.append(handler.headers["User-Agent"])
                params = {key: values[0] for key, values in parse_qs(parts.query).items()}
                self.params.append(params)
                handler.send(200, {"Content-Type": "application/json"},
                             json.dumps(self.respond(params)).encode())
        server.server.RequestHandlerClass.do_GET = answer

    def respond(self, params):
        """Return the answer to a query."""
        assert params["action"] == "query" and params["format"] == "json"
        if self.busy:
            self.busy -= 1
            return {"error": {"code": "maxlag", "info": "Waiting for db1: 7 seconds lagged."}}
        if params["prop"] == "categoryinfo":
            known = {"pageid": 1, "categoryinfo": {"files": 1}}
            return {"query": {"pages": [
                {"ns": 14, "title": title, **(known if title in self.categories else
                                              {"missing": True})}
                for title in sorted(params["titles"].split("|"))]}}
        if params["generator"] == "search":
            pages, offset, limit = self.texts.get(params["gsrsearch"], []), "gsroffset", "gsrlimit"
        else:
            pages, offset, limit = self.categories[params["gcmtitle"]], "gcmcontinue", "gcmlimit"
        first, count = int(params.get(offset, 0)), int(params[limit])
        answer = {"batchcomplete": True, "query": {"pages": pages[first:first + count]}}
        if first + count < len(pages):
            answer["continue"] = {offset: str(first + count), "continue": "gcmcontinue||"}
        return answer

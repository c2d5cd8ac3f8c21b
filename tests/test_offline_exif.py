"""What the page without a server reads from EXIF: the same time and place as predict.py."""
import base64
import json
import shutil
import subprocess

import pytest
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from evaluation.prediction_output import read_event
from images import encode, open_image
from tests.conftest import ROOT, draw

TIME = "2026:05:17 10:15:12"
READ = """globalThis.location = {pathname: "/"}; globalThis.navigator = {};
const [file, ...scripts] = process.argv.slice(2), fs = require("fs");
const code = scripts.map(path => fs.readFileSync(path, "utf-8")).join("\\n");
const captureOf = new Function(code + "; return captureOf")();
(async () => {
  const found = [], now = new Date();
  for (const [data, minutes] of JSON.parse(fs.readFileSync(file))) {
    const photo = new File([Buffer.from(data, "base64")], "", {lastModified: now - minutes * 60e3});
    found.push(await captureOf(photo, now));
  }
  console.log(JSON.stringify(found));
})()"""


def captures(folder, photographs):
    """Return what the page finds in photographs [(bytes, minutes since they were written)]."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    (folder / "read.js").write_text(READ, encoding="utf-8")
    (folder / "photographs.json").write_text(json.dumps(
        [[base64.b64encode(data).decode(), minutes] for data, minutes in photographs]))
    scripts = [ROOT / "web" / name for name in ("exif.js", "view.js", "log.js")]
    done = subprocess.run(["node", folder / "read.js", folder / "photographs.json", *scripts],
                          check=True, capture_output=True, text=True, timeout=60)
    return json.loads(done.stdout)


def exif(latitude="N", longitude="E", time=TIME, place=((44, 30, 0), (34, 0, 0)), **more):
    """Return EXIF with a position and a time; `more` has a digitized or changed time, a make."""
    found = Image.Exif()
    found.get_ifd(0x8825).update({1: latitude, 3: longitude, **{
        tag: tuple(IFDRational(part, 1) for part in parts)
        for tag, parts in zip((2, 4), place, strict=True)}})
    found.get_ifd(0x8769)[0x9003] = time
    if "digitized" in more:
        found.get_ifd(0x8769)[0x9004] = more["digitized"]
    found[0x0131] = "program"
    found.update({tag: more[key] for key, tag in (("make", 0x010F), ("changed", 0x0132))
                  if key in more})
    return found


def test_time_and_place_are_those_of_predict_py(tmp_path):
    """A padded "S " was north, and 31 February a time."""
    zero = "0000:00:00 00:00:00"
    variants = [
        exif(), exif("S ", "W "), exif("s", "w"), exif("", ""), exif("X", "E"),
        exif(place=((91, 0, 0), (34, 0, 0))), exif(place=((0, 0, 0), (0, 0, 0))),
        exif(place=((44,), (34,))), exif(time=zero), exif(time="2026:02:31 10:15:12"),
        exif(time="2026:02:03 25:61:00"), exif(time="2026-05-17 10:15:12+03:00"),
        exif(time="", digitized=TIME), exif(time="", changed=TIME),
        exif(time="", changed=TIME, make="Canon"), exif(time="yesterday")]
    data = [encode(draw(1), kind, exif=one) for one in variants for kind in ("JPEG", "WEBP", "PNG")]
    found = captures(tmp_path, [(one, 60) for one in data])
    for one, page in zip(data, found, strict=True):
        (tmp_path / "photo").write_bytes(one)
        event = read_event(open_image(tmp_path / "photo", 1)[0])
        place = page["place"] or {"latitude": "", "longitude": ""}
        assert (page["taken"], place["latitude"], place["longitude"]) == (
            event["eventDate"], event["decimalLatitude"], event["decimalLongitude"])
    assert found[3]["place"] == {"latitude": -44.5, "longitude": -34}
    later = exif(time=zero, digitized=TIME)
    assert captures(tmp_path, [(encode(draw(1), "JPEG", exif=later), 60)])[0]["taken"]


def test_a_photograph_of_another_day_does_not_get_this_place(tmp_path):
    """A file saved just now, with a time of years ago, got the position of today."""
    old, none, large = exif(), Image.Exif(), draw(1, (900, 900), detail=900)
    photographs = [(encode(draw(1), "JPEG", exif=old), 0), (encode(draw(1), "JPEG", exif=none), 0),
                   (encode(draw(1), "JPEG", exif=none), 9), (encode(draw(1), "PNG"), 0),
                   (encode(large, "WEBP", exif=old, lossless=True), 0)]
    found = captures(tmp_path, photographs)
    assert [one["fresh"] for one in found] == [False, True, False, False, False]
    assert found[4]["taken"] == "2026-05-17T10:15:12"

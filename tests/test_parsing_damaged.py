"""Collecting photographs that can be opened although data is lost, and odd but sound files."""
import io

import pytest
from PIL import Image

from dataset_preparation.parsing.connections import Refused
from dataset_preparation.parsing.photo_check import check_photo
from tests.collecting_runs import download, found_row
from tests.collecting_server import CollectingServer
from tests.conftest import draw, jpeg
from tests.test_damaged import lose, noisy, zero

WHOLE = jpeg(noisy(1), quality=90)
DAMAGED, OTHERWISE = lose(WHOLE, 3000), zero(WHOLE, 4000)
PATH = "/photograph.jpg"


@pytest.fixture
def server():
    """A server whose photograph is one after another of `bodies`; the last one stays."""
    with CollectingServer() as running:
        respond, running.bodies = running.server.RequestHandlerClass.do_GET, [WHOLE]

        def one_after_another(handler):
            if handler.path == PATH:
                with running.lock:
                    running.log.append((0, PATH))
                    first = running.bodies.pop(0) if running.bodies[1:] else running.bodies[0]
                return handler.send(200, {"Content-Type": "image/jpeg"}, first)
            return respond(handler)
        running.server.RequestHandlerClass.do_GET = one_after_another
        yield running


def run(server, folder, fallback="", earlier=False):
    """Download, and return (the row, the bytes that were kept, requests so far)."""
    row = found_row(server.url + PATH, fallbacks=fallback)
    tables = download(folder, [] if earlier else [row], earlier=earlier, attempts=3)
    row, = tables.found.values()
    return row, tables.photo_path(row).read_bytes(), len(server.requested(PATH))


def test_a_photograph_damaged_on_the_way_is_downloaded_again(server, tmp_path):
    server.bodies = [DAMAGED, WHOLE]
    row, data, requests = run(server, tmp_path)
    assert (row["reason"], data, requests) == ("", WHOLE, 2)


def test_a_photograph_that_stays_damaged_is_kept_and_marked(server, tmp_path):
    server.bodies = [OTHERWISE, DAMAGED]
    row, data, requests = run(server, tmp_path)
    assert row["reason"].startswith("damaged: ") and data == DAMAGED
    assert requests == 3  # the same bytes twice are final
    assert run(server, tmp_path, earlier=True) == (row, DAMAGED, 3)


def test_a_whole_smaller_copy_comes_before_a_damaged_original(server, tmp_path):
    server.bodies = [DAMAGED]
    copy = server.photo("copy")
    row, data, requests = run(server, tmp_path, copy)
    assert row["reason"] == f"from fallback {copy}" and len(data) < len(WHOLE) and requests == 2
    again, data, requests = run(server, tmp_path, earlier=True)  # once more, then never
    assert again["reason"] == f"from fallback {copy}" and requests == 4
    assert run(server, tmp_path, earlier=True)[2] == 4
    other = tmp_path / "other"
    run(server, other, copy)
    server.bodies = [WHOLE]
    row, data, _ = run(server, other, earlier=True)
    assert data == WHOLE and row["reason"] == ""


def test_a_damaged_photograph_without_any_copy_is_kept_in_the_end(server, tmp_path):
    server.bodies = [DAMAGED]
    download(tmp_path, [found_row(server.url + PATH, fallbacks=f"{server.url}/gone")], attempts=3)
    row, data, _ = run(server, tmp_path, earlier=True)
    assert row["status"] == "saved" and "damaged: " in row["reason"] and data == DAMAGED


@pytest.mark.parametrize(("kind", "extension"), [
    ("TIFF", "tif"), ("BMP", "bmp"), ("JPEG2000", "jp2"), ("WEBP", "webp"), ("AVIF", "avif"),
    ("PNG", "png"), ("GIF", "gif")])
def test_every_format_that_cleaning_takes_is_collected(kind, extension):
    data = io.BytesIO()
    draw(1).save(data, kind)
    assert check_photo(data.getvalue(), 25)[2:] == (extension, 300, 280, "")


def test_heic_is_collected_where_it_can_be_read():
    pytest.importorskip("pillow_heif")
    data = io.BytesIO()
    draw(1).save(data, "HEIF")
    assert check_photo(data.getvalue(), 25).extension == "heic"


def gif(side):
    data = io.BytesIO()
    Image.new("L", (side, side)).save(data, "GIF")
    return data.getvalue()


@pytest.mark.parametrize(("data", "reason"), [
    (gif(1), "tracking pixel or icon: 1 x 1"), (gif(31), "tracking pixel or icon: 31 x 31"),
    (b"\xef\xbb\xbf<!DOCTYPE html><html>", "an HTML page"), (b"<error>no</error>", "an XML or"),
    (b"\x00\x00\x00\x20ftypmp42....", "a video"), (b"\x1aE\xdf\xa3...", "a video"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL picture"), (b"PK\x03\x04...", "a zip archive")])
def test_downloads_that_are_no_photographs_are_refused_by_name(data, reason):
    with pytest.raises(Refused, match=reason):
        check_photo(data, 25)
    assert check_photo(gif(32), 25).width == 32

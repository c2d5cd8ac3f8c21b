"""Pages where a name, a network or a disk is not as expected, and files made to hang them."""
import json
import re
import shutil
import socket
import subprocess

import numpy as np
import pytest
from PIL import Image

from images import View, evaluation_view
from tests.conftest import ROOT
from utils import InputError
from web import offline_page, page_server
from web.runtime import FILES


def test_a_host_given_by_its_name_is_opened_by_its_address():
    """The server refuses other names, as of sites that point theirs at this machine."""
    with page_server.PageServer({}, "127.1") as server:  # a name to `is_plain_host`
        host = re.match(r"http://(.*?)/", server.url)[1]
        assert page_server.is_plain_host(host) and host.startswith("127.0.0.1:")


def test_a_machine_without_a_network_serves_the_page_to_itself(monkeypatch, capsys):
    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    def stop(*_):
        raise KeyboardInterrupt
    monkeypatch.setattr(socket, "gethostbyname", unknown)
    monkeypatch.setattr(socket.socket, "connect", unknown)
    monkeypatch.setattr(page_server.PageServer, "serve_forever", stop)
    page_server.serve(page_server.PageServer({}, "0.0.0.0"), open_browser=False)
    printed = capsys.readouterr().out
    assert "open http://127.0.0.1:" in printed and "phone" not in printed


# ---- the offline page ----

class DiskFull(Exception):
    """A write failed."""


def write_page(folder, network):
    offline_page.write_folder(folder, network, {"network": {}}, dict.fromkeys(FILES, b""), "1")


@pytest.mark.parametrize("written", range(8))
def test_an_export_that_stops_leaves_a_whole_page(tmp_path, monkeypatch, written):
    """The network of the earlier page was deleted first, and the page named one not yet written."""
    write_page(tmp_path, b"old")
    atomic_path, left = offline_page.atomic_path, iter(range(written))

    def full(path):
        if next(left, None) is None:
            raise DiskFull
        return atomic_path(path)
    monkeypatch.setattr(offline_page, "atomic_path", full)
    with pytest.raises(DiskFull):
        write_page(tmp_path, b"new")
    facts = json.loads((tmp_path / offline_page.MARK).read_text("utf-8"))
    preloaded = re.findall(r"network-\w+\.onnx", (tmp_path / "index.html").read_text("utf-8"))
    for name in (facts["network"]["file"], *preloaded):
        assert (tmp_path / name).is_file()


def test_an_export_replaces_its_own_files_alone(tmp_path):
    """A folder with any facts.json was taken for a page, and all that is called network-*.onnx."""
    mine = tmp_path / "mine"
    mine.mkdir()
    for name, text in (("facts.json", '{"my": "own"}'), ("index.html", "my own page")):
        (mine / name).write_text(text, encoding="utf-8")
    for facts in ('{"my": "own"}', '{"network": {"version": "1", "file": "../a.onnx"}}', "[]", "{"):
        (mine / "facts.json").write_text(facts, encoding="utf-8")
        with pytest.raises(InputError, match="contains no earlier page"):
            offline_page.require_folder(mine)
        with pytest.raises(InputError, match="contains no page"):
            offline_page.folder_routes(mine)
    page = tmp_path / "page"
    write_page(page, b"old")
    old, = page.glob("network-*.onnx")
    (page / "network-backup.onnx").write_bytes(b"precious")
    offline_page.require_folder(page)
    write_page(page, b"new")
    assert not old.exists()
    assert sorted(path.read_bytes() for path in page.glob("*.onnx")) == [b"new", b"precious"]


def test_a_webp_of_a_size_that_wraps_does_not_hang_the_page(tmp_path):
    """Its chunk of nearly 4 GiB led back to itself, for ever."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    (tmp_path / "test.js").write_text((ROOT / "web/exif.js").read_text("utf-8") + """
      const bytes = new Uint8Array(64);
      bytes.set(Buffer.from("RIFF"), 0);
      bytes.set(Buffer.from("WEBPVP8X"), 8);
      bytes.set([0xf7, 0xff, 0xff, 0xff], 16);
      let count = 0;
      webpChunks(bytes, () => { if (++count > 9) process.exit(1) });
    """, encoding="utf-8")
    subprocess.run(["node", tmp_path / "test.js"], check=True, timeout=60)


@pytest.mark.parametrize("size", [(150, 464), (300, 644), (101, 300), (644, 300)])
def test_a_tall_photograph_is_resized_in_the_order_of_pillow(size, tmp_path):
    """Pillow 13 begins downwards if that takes away over twice as much as across."""
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    (tmp_path / "test.js").write_text((ROOT / "web/view.js").read_text("utf-8") + """
      const [width, height, view] = JSON.parse(process.argv[2]);
      const data = Uint8ClampedArray.from(require("fs").readFileSync(process.argv[3]));
      process.stdout.write(evaluationView({ width, height, data }, view));
    """, encoding="utf-8")
    pixels = np.random.default_rng(0).integers(0, 2, (size[1], size[0], 3), np.uint8) * 255
    (tmp_path / "pixels").write_bytes(pixels.tobytes())
    view = View(80)
    facts = json.dumps([*size, {**view._asdict(), "resized_side": view.resized_side}])
    done = subprocess.run(["node", tmp_path / "test.js", facts, tmp_path / "pixels"], check=True,
                          capture_output=True, timeout=60)
    assert done.stdout == evaluation_view(Image.fromarray(pixels), view).tobytes()


# ---- flags ----

def test_what_a_page_without_a_server_ignores_is_said(tmp_path, monkeypatch, capsys):
    import app
    monkeypatch.setattr(app, "serve", lambda *_: None)
    write_page(tmp_path, b"network")
    app.main(["--web", str(tmp_path), "--max_risk", "0.1", "--feedback", "--host", "127.0.0.1"])
    warning = capsys.readouterr().err
    assert "--max_risk" in warning and "--feedback" in warning and "--host" not in warning
    with pytest.raises(InputError, match="contains no page"):
        app.main(["--web", str(tmp_path / "none")])

"""Does the page without a server answer as predict.py does, and how large and fast is it?

    python export.py --checkpoint FILE --web PAGE
    python benchmarks/offline_page.py --page PAGE --photos data/dataset/test
    figure offline_page_first_load 7.7 MB target <= 12 met

Every photograph of --photos goes in turn through the page, in Chromium, and through predict.py with
the page's network, both on one thread. Their views are compared, too. Needs Chromium and selenium.
"""
import base64
import gzip
import sys
import threading
import time
from pathlib import Path

import numpy as np
from selenium import webdriver

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import onnxruntime

import app
import config
from benchmarks.common import parse, state
from evaluation.predictor import load_onnx
from predict import find_photos, interpret, read_view
from web.offline_page import LATER

READY = """const done = arguments[0], look = () => facts ? backend.session.then(() => done(""),
    error => done(String(error))) : setTimeout(look, 5); look()"""
ANSWER = """const [data, done] = arguments, start = performance.now();
    const file = new File([Uint8Array.from(atob(data), char => char.charCodeAt(0))], "photo");
    readView(file, facts.network.view, facts.megapixels).then(async view => {
      const seen = performance.now(), outputs = await (await backend.session)(view);
      done({seconds: [seen - start, performance.now() - seen].map(ms => ms / 1000),
            view: btoa(view.reduce((text, byte) => text + String.fromCharCode(byte), "")),
            outputs: [...outputs], prediction: interpret([outputs], facts.network)});
    }).catch(error => done({refused: error.refused || String(error)}))"""
SAME = ("verdict", "reason", "scientificName", "taxonRank", "set")


def main(argv=None):
    flags = parse(__doc__, argv, page="")
    page = Path(flags.page)
    s, _ = config.parse(["--onnx", str(next(page.glob("network-*.onnx"))), "--web", str(page),
                         "--top", "5"], app.__file__, "")
    predictor = one_thread(load_onnx(s.onnx))
    size = sum(len(gzip.compress(path.read_bytes())) for path in page.iterdir()
               if path.name not in LATER)
    with app.build_server(s) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        browser = open_browser()
        try:
            start = time.perf_counter()
            browser.get(server.url)
            assert browser.execute_async_script(READY) == ""
            ready = time.perf_counter() - start
            rows = [compare(browser, path, predictor, s)
                    for path in find_photos([str(flags.photos)])]
        finally:
            browser.quit()
            server.shutdown()
    same, pixels, outputs, here, there = map(np.array, zip(*rows, strict=True))
    views = 1 + predictor.flip_tta
    print(f"{len(rows):,} photographs, {same.sum():,} with the same answer; pixels differ by at "
          f"most {pixels.max()}, outputs by {outputs.max():.1e}")
    page_ms, python_ms = 1000 * np.median(here[:, 1]) / views, 1000 * np.median(there) / views
    print(f"per view: {page_ms:.1f} ms in the page, {python_ms:.1f} ms in Python; decoding and "
          f"resizing in the page {1000 * np.median(here[:, 0]):.1f} ms")
    return state([("offline_page_first_load", size / 1e6, "MB", "<=", 12),
                  ("offline_page_ready", ready, "s", "<=", 3),
                  ("offline_page_view", page_ms, "ms", "<=", 200),
                  ("offline_page_over_python", page_ms / python_ms, "times", "<=", 12),
                  ("offline_page_other_answers", len(rows) - same.sum(), "photographs", "<=", 0),
                  ("offline_page_outputs_apart", outputs.max(), "logits", "<=", 0.05)])


def one_thread(predictor):
    """Return the predictor with a session of one thread, with flip TTA if it was calibrated so."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(predictor.path, options, ["CPUExecutionProvider"])

    def outputs(views):
        sides = [views, np.ascontiguousarray(views[:, :, ::-1])][:1 + predictor.flip_tta]
        return np.mean([session.run(None, {"views": side})[0] for side in sides], 0)
    return predictor._replace(outputs=outputs)


def open_browser():
    """Return a headless Chromium."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options)


def compare(browser, path, predictor, s):
    """Return (same answer, pixels apart, outputs apart, seconds in the page, in Python)."""
    data = Path(path).read_bytes()
    found = browser.execute_async_script(ANSWER, base64.b64encode(data).decode())
    view = read_view(data, predictor.view, s)
    start = time.perf_counter()
    outputs = predictor.outputs(view[None])
    seconds = time.perf_counter() - start
    if "refused" in found:
        raise SystemExit(f"{path}: the page refuses it: {found['refused']}")
    expected, given = interpret(outputs, predictor, s)[0], found["prediction"]
    pixels = np.frombuffer(base64.b64decode(found["view"]), np.uint8).reshape(view.shape)
    same = (all(given[key] == expected[key] for key in SAME)
            and [one["label"] for one in given["names"]]
            == [one["label"] for one in expected["names"]])
    return (same, np.abs(pixels.astype(int) - view).max(),
            np.abs(found["outputs"] - outputs[0]).max(), found["seconds"], seconds)


if __name__ == "__main__":
    sys.exit(main())

"""Show a page that names the plant in a photograph: drop one, paste one, choose one, take one with a phone.

    python app.py                            # opens the page in the browser of this machine
    python app.py --host 0.0.0.0             # for phones in the same network too, at the address it prints
    python app.py --onnx FILE                # what export.py wrote: starts sooner, cannot show where it looked
    open http://127.0.0.1:40123/?token=...

The answer is that of predict.py, "not sure" included. Photographs are looked at in memory and kept nowhere; what is no
picture, or too large, is refused before it is decoded. The page is one file of our own, app.html, rather than one of a
framework: it opens as soon as the network is loaded, weighs less than a photograph and asks nothing of other sites.
"""
import re
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL import Image

import config
from images import BadImage, encode, open_image, resize_shorter_side, to_rgb, view_side
from predict import LANGUAGES, answer, load_predictor, read_view
from utils import FOLDER_ALIASES, InputError, read_table, run, slug
from web.page_server import PageServer, Reply, json_reply, page, serve

NAMES = 5  # shown per photograph, more with --top
REFUSALS = {  # beginning of BadImage's reason: what the page says about it
    "empty file": "empty", "not a picture": "foreign", "too large": "pixels", r"\d+ frames": "frames"}
EXAMPLE_SIDE = 320  # pixels: shorter side of an example, at most
KEEP_SECONDS = 3600  # a browser may keep an example that long


def main(argv=None):
    config.override(argv, description=__doc__)
    serve(build_server(), config.OPEN_BROWSER)


def build_server():
    """Return the server of the page, its network loaded and warm, not yet serving."""
    s = config.namespace(top=max(NAMES, config.TOP))
    predictor = load_predictor(s)
    predictor.outputs(np.zeros((1, predictor.image_size, predictor.image_size, 3), np.uint8))  # the first one is slow
    examples = find_examples(s.dataset_dir, [names[0] for names in predictor.classes], s.examples)
    return PageServer(build_routes(predictor, examples, s), s.host, s.port, max_body=int(s.upload_mb * 1e6))


def build_routes(predictor, examples, s):
    """Return the server's table. One thread decodes and computes, so that what is large is in memory once."""
    worker = ThreadPoolExecutor(1, "worker")

    def queued(function, *arguments):
        return lambda request: worker.submit(function, *arguments, request).result()
    routes = {("GET", "/"): page(config.ROOT / "web/app.html"),
              ("GET", "/facts"): partial(tell_facts, predictor, examples, s),
              ("GET", "/example"): queued(show_example, examples, s),
              ("POST", "/answer"): queued(name_photograph, predictor, s)}
    if predictor.network is not None:
        routes["POST", "/heat"] = queued(show_heat, predictor, s)
    return routes


# ---- what the page asks for ----

def tell_facts(predictor, examples, s, _):
    """Reply with what the page needs to know: classes, credits of their examples, limits."""
    size = predictor.image_size
    return json_reply({
        "classes": [{**dict(zip(LANGUAGES, names, strict=True)),
                     "examples": [{key: row.get(key, "") for key in ("author", "license", "url")} for row in rows]}
                    for names, rows in zip(predictor.classes, examples, strict=True)],
        "heat": predictor.network is not None, "seen": size / view_side(size),  # the part of the shorter side
        "strangers": predictor.threshold is not None, "calibrated": predictor.temperature != 1.0,
        "max_risk": s.max_risk, "upload_mb": s.upload_mb, "megapixels": s.max_megapixels})


def name_photograph(predictor, s, request):
    """Reply with the answer for the photograph in the body, or with why it is refused."""
    try:
        view = read_view(request.body, predictor.image_size, s)
    except BadImage as error:
        kind = next((kind for start, kind in REFUSALS.items() if re.match(start, str(error))), "broken")
        return json_reply({"refused": kind, "detail": str(error)}, 422)
    return json_reply(answer(predictor.outputs(view[None]), predictor, s)[0])


def show_heat(predictor, s, request):
    """Reply with a PNG to lay over what the network saw: where it looked for the class `label` of the query."""
    import torch

    from evaluation.grad_cam import grad_cam, heat_layer
    label = number(request.query, "label", len(predictor.classes))
    view = torch.from_numpy(read_view(request.body, predictor.image_size, s)[None])
    network = predictor.network
    heat = grad_cam(network.model, network.normalize(view.to(network.mean.device)), torch.tensor([label]))[0]
    return Reply(encode(Image.fromarray(heat_layer(heat)), "PNG"), "image/png")


def show_example(examples, s, request):
    """Reply with a training photograph: number `place` of class `label`, of the query."""
    rows = examples[number(request.query, "label", len(examples))]
    file = rows[number(request.query, "place", len(rows))]["file"]
    try:
        image = to_rgb(open_image(file, s.max_megapixels, draft_side=EXAMPLE_SIDE)[0])
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    small = resize_shorter_side(image, min(EXAMPLE_SIDE, *image.size))
    return Reply(encode(small), "image/jpeg", keep_seconds=KEEP_SECONDS)


def number(query, name, count):
    """Return the number in [0, count) that a query gives under a name; InputError where it gives none."""
    text = query.get(name, "")
    if not (text.isascii() and text.isdecimal() and int(text) < count):
        raise InputError(f"{name} must be a number below {count}, not {text!r}")
    return int(text)


def find_examples(dataset, names, count):
    """Return per class up to `count` rows of the training table, spread over it, with their `file`; none without one.

    Classes are matched by the folders of the photographs, so that another dataset's examples are never shown.
    """
    labels, found = {slug(name): label for label, name in enumerate(names)}, [[] for _ in names]
    table = dataset / "train_labels.csv"
    for row in read_table(table, ("path",)) if table.is_file() else ():
        file = dataset / row["path"].replace("\\", "/")
        label = labels.get(slug(FOLDER_ALIASES.get(file.parent.name, file.parent.name)))
        if label is not None:
            found[label].append({**row, "file": file})
    return [rows[::max(1, len(rows) // max(1, count))][:count] for rows in found]


if __name__ == "__main__":
    run(main)

"""Serve a page that names the plant in a photograph: drop one, paste one, take one with a phone.

    python app.py                 # opens the page in the browser of this machine
    python app.py --host 0.0.0.0  # also for phones in the same network, at the printed address
    python app.py --host 0.0.0.0 --link gentian  # a short address, the same after every start
    python app.py --onnx FILE     # a file of export.py: starts sooner, but cannot show heat maps
    python app.py --feedback      # people may correct answers, see dataset_preparation/feedback.py
    python app.py --web FOLDER    # the page of export.py --web, which computes in the browser
    open http://127.0.0.1:40123/?token=...

Predictions are those of predict.py, including "not sure". Photographs are not stored, except with
--feedback those whose answer somebody corrects and agrees to have kept. Files that are not
pictures, or too large, are refused before they are decoded. The page is web/app.html with the
scripts app.js and answer.js, without a framework; it requests nothing from other sites.
"""
import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import config  # first: it reports a missing package in one sentence

# isort: split
import numpy as np
from PIL import Image

from dataset_preparation.feedback import keep_feedback
from evaluation.predictor import load_predictor
from evaluation.together import combine_photographs, correlation_of
from images import BadImage, encode, open_image, resize_shorter_side, to_rgb
from names import FOLDER_ALIASES, leaves_folder, look, table_path, whole_number
from predict import interpret, read_first_page, read_view
from utils import InputError, file_sha256, read_table, run, warn
from web.offline_page import folder_routes
from web.page_facts import NAMES, page_facts
from web.page_server import PageServer, Reply, json_reply, page, serve, text_reply

REFUSALS = {  # start of BadImage's message (regular expression): key of the page's text about it
    "empty file": "empty", "not a picture": "unknown", "too large": "pixels", "HEIC": "heic",
    r"\d+ frames": "animation"}
EXAMPLE_SIDE = 320  # pixels: shorter side of an example, at most
JPEG = b"\xff\xd8\xff"  # first bytes of every JPEG
# The outputs of a plant's photographs: bytes of a number, photographs that always fit, bytes.
NUMBER_BYTES, TOGETHER, MOST_OUTPUTS = 26, 20, 500_000
LINK_PORT = 8765  # with --link, so that the address stays the same
KEEP_SECONDS = 3600  # how long a browser may keep an example
IDLE_WITH_WEB = ("CHECKPOINT", "DEVICE", "ONNX", "TOP", "FLIP_TTA", "MAX_RISK", "UPLOAD_MB",
                 "EXAMPLES", "LINK", "FEEDBACK")


def main(argv=None):
    s, given = config.parse(argv, __file__, __doc__)
    if s.web and (idle := [f"--{name.lower()}" for name in IDLE_WITH_WEB if name in given]):
        warn(f"{', '.join(idle)} without effect: the page of --web answers as export.py wrote it")
    serve(build_server(s), s.open_browser)


def build_server(s):
    """Return the server of the page, its network loaded and warmed up, not yet serving."""
    if s.web:
        return PageServer(folder_routes(Path(s.web)), s.host, s.port, token=False)
    s.top = max(NAMES, s.top)
    predictor = load_predictor(s)
    side = predictor.view.image_size
    predictor.outputs(np.zeros((1, side, side, 3), np.uint8))  # the first call is the slowest
    names = [plant.latin for plant in predictor.classes]
    examples = find_examples(s.dataset_dir, names, s.examples)
    examples = [rows or stored_example(picture) for rows, picture in zip(
        examples, predictor.pictures or [{}] * len(examples), strict=True)]
    port = s.port or (LINK_PORT if s.link else 0)
    photograph, row = int(s.upload_mb * 1e6), NUMBER_BYTES * (len(names) + 1)
    large = {**dict.fromkeys(("/predict", "/heat", "/feedback"), photograph),
             "/interpret": max(MOST_OUTPUTS, TOGETHER * row)}
    return PageServer(build_routes(predictor, examples, s), s.host, port, link=s.link, large=large)


def build_routes(predictor, examples, s):
    """Return the server's routes; a single thread decodes and predicts, which limits the memory."""
    worker = ThreadPoolExecutor(1, "worker")

    def work(function, arguments, request):
        return text_reply(408, "nobody waits") if request.has_left() else function(
            *arguments, request)

    def queued(function, *arguments):
        return lambda request: worker.submit(work, function, arguments, request).result()
    facts = json_reply({**page_facts(predictor, examples, s), "feedback": s.feedback})
    routes = {("GET", "/"): page(config.ROOT / "web/app.html"),
              ("GET", "/facts"): lambda request: facts,
              ("GET", "/example"): queued(get_example, examples, s),
              ("POST", "/predict"): queued(post_photograph, predictor, s),
              ("POST", "/interpret"): queued(post_outputs, predictor, s)}
    if s.feedback:
        network = f"{predictor.path.name} {file_sha256(predictor.path)[:16]}"
        routes["POST", "/feedback"] = queued(post_feedback, predictor, network, s)
    if predictor.network is not None:
        routes["POST", "/heat"] = queued(post_heat, predictor, s)
    return routes


# ---- routes ----

def post_photograph(predictor, s, request):
    """Reply with the prediction for the photograph in the body, or with why it is refused."""
    try:
        view, pages = read_first_page(request.body, predictor.view, s)
    except BadImage as error:
        kind = next((kind for start, kind in REFUSALS.items() if re.match(start, str(error))),
                    "broken")
        return json_reply({"refused": kind, "detail": str(error)}, 422)
    outputs = predictor.outputs(view[None])
    return json_reply({**interpret(outputs, predictor, s)[0], "outputs": outputs[0].tolist(),
                       **({"further_pages": pages - 1} if pages > 1 else {})})


def post_outputs(predictor, s, request):
    """Reply with the prediction for one plant; the body lists the outputs of its photographs."""
    count = len(predictor.classes) + 1
    try:
        lists = json.loads(request.body)
        if not lists or any(len(row) != count for row in lists):  # numpy is slow with such lists
            raise ValueError
        rows = np.array(lists, float)
        if rows.ndim != 2:
            raise ValueError
    except (ValueError, TypeError, OverflowError, RecursionError):
        raise InputError(f"not lists of {count} outputs") from None
    outputs, _ = combine_photographs(rows, correlation_of(predictor.answers))
    return json_reply(interpret(outputs[None], predictor, s)[0])


def post_heat(predictor, s, request):
    """Reply with a PNG to overlay on the view: its Grad-CAM heat map for the query's `label`."""
    import torch

    from evaluation.grad_cam import grad_cam, heat_layer
    label = parse_index(request.query, "label", len(predictor.classes))
    view = torch.from_numpy(read_view(request.body, predictor.view, s)[None])
    network = predictor.network
    images = network.normalize(view.to(network.mean.device))
    heat = grad_cam(network.model, images, torch.tensor([label]))
    if heat is None:
        raise InputError("this network has no feature maps, so there is no heat map")
    return Reply(encode(Image.fromarray(heat_layer(heat[0])), "PNG"), "image/png")


def post_feedback(predictor, network, s, request):
    """Keep the photograph in the body with its corrected `label` in the query.

    `label` may be "none", for none of the plants; `consent` must be "yes".
    """
    if request.query.get("consent") != "yes":
        raise InputError("a photograph is only kept with consent=yes")
    latin = ""
    if request.query.get("label") != "none":
        label = parse_index(request.query, "label", len(predictor.classes))
        latin = predictor.classes[label].latin
    view = read_view(request.body, predictor.view, s)
    prediction = interpret(predictor.outputs(view[None]), predictor, s)[0]
    try:
        keep_feedback(s.collected_dir, request.body, latin, prediction, network)
    except InputError as error:
        warn(error)  # the page of the sender cannot mend it
        raise
    return json_reply({"kept": True})


def get_example(examples, s, request):
    """Reply with a training photograph: the query's `index` among those of class `label`."""
    rows = examples[parse_index(request.query, "label", len(examples))]
    row = rows[parse_index(request.query, "index", len(rows))]
    if "data" in row:
        return Reply(row["data"], "image/jpeg", keep_seconds=KEEP_SECONDS)
    file = row["file"]
    try:
        image = to_rgb(open_image(file, s.max_megapixels, draft_side=EXAMPLE_SIDE)[0])
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    small = resize_shorter_side(image, min(EXAMPLE_SIDE, *image.size))
    return Reply(encode(small), "image/jpeg", keep_seconds=KEEP_SECONDS)


def stored_example(picture):
    """Return the picture stored with the network as the only example of a class, if it has one."""
    data = base64.b64decode(picture["picture"]) if picture else b""
    return [{**picture, "data": data}] if data.startswith(JPEG) else []


def parse_index(query, name, count):
    """Return the number in [0, count) of a query's parameter, or raise InputError."""
    index = whole_number(text := query.get(name, ""))
    if index is None or index >= count:
        raise InputError(f"{name} must be a number below {count}, not {text[:20]!r}")
    return index


def find_examples(dataset_dir, names, count):
    """Return for each class up to `count` rows of the training table, with the path as `file`.

    They are spread over the table. Folder names, not labels, identify classes, so that photographs
    of another dataset are never shown as examples.
    """
    labels = {look(name): label for label, name in enumerate(names)}
    found, table = [[] for _ in names], dataset_dir / "train_labels.csv"
    for row in read_table(table, ("path",)) if table.is_file() else ():
        path = table_path(row["path"])
        if leaves_folder(path):  # a stranger's table must not show files of this machine
            continue
        file = dataset_dir / path
        folder = FOLDER_ALIASES.get(file.parent.name, file.parent.name)
        if look(folder) in labels:
            found[labels[look(folder)]].append({**row, "file": file})
    return [rows[::max(1, len(rows) // max(1, count))][:count] for rows in found]


if __name__ == "__main__":
    run(main)

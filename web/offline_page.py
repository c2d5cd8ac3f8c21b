"""The offline page, a static folder: written by export.py, served by app.py or any static host.

The folder contains the page, the network, ONNX Runtime Web, and a service worker that stores all of
it on the device (if the address is https or localhost).
"""
import base64
import gzip
import hashlib
import json
import re
from datetime import date
from mimetypes import guess_type
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from images import encode
from settings.command_line import script_command
from utils import InputError, atomic_path, sha256
from web.page_server import OWN_FILES, Reply, inline_sources, read_html

HERE = Path(__file__).parent
SCRIPTS = ("exif.js", "view.js", "decide.js", "log.js", "gpu.js", "offline.js")
# Of ONNX Runtime Web: what web/gpu.js asks for once the page is ready, where there is WebGPU.
LATER = ("ort.jspi.bundle.min.mjs", "ort-wasm-simd-threaded.jspi.wasm")
POLICY = f"{OWN_FILES}; manifest-src 'self'; worker-src 'self'"
HEAD = ('<meta http-equiv="Content-Security-Policy" content="%s">\n'
        '<link rel="manifest" href="manifest.webmanifest">\n<link rel="icon" href="icon-192.png">\n'
        '<link rel="apple-touch-icon" href="icon-192.png">\n<meta name="theme-color" '
        'content="#2f7a50">\n%s')
# Start loading at once what the page would otherwise request after it has read the facts.
PRELOAD = {".mjs": '<link rel="modulepreload" href="%s">',
           ".wasm": '<link rel="preload" as="fetch" crossorigin href="%s">',
           ".onnx": '<link rel="preload" as="fetch" crossorigin href="%s">'}
AGAIN = 60  # seconds to cache those: the service worker requests them a second time
GREEN, PAPER = "#2f7a50", "#f5f3ea"
FEW, MANY = 64, 100_000  # weights: tensors up to FEW stay float32, from MANY on are rounded further
MARK = "facts.json"  # a folder where it is that of a page may be overwritten
NETWORK = r"network-[0-9a-f]{8}\.onnx"
NAMING = ("index.html", MARK, "worker.js")  # files that name others
TYPES = {".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm",
         ".webmanifest": "application/manifest+json", ".json": "application/json",
         ".onnx": "application/octet-stream", ".html": "text/html; charset=utf-8"}


# ---- the network ----

def halve_weights(path):
    """Store an ONNX file's weights as `round_half` does; the graph casts them back to float32.

    The pictures of the classes are removed from the metadata, because the page has them.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    model = onnx.load(path)
    casts = []
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size <= FEW:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(round_half(values), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
    for fact in model.metadata_props:
        if fact.key == "classes":
            fact.value = json.dumps([{**plant, "picture": ""} for plant in json.loads(fact.value)],
                                    ensure_ascii=False)
    onnx.save(model, path)


def round_half(values):
    """Return float32 values as float16; large tensors keep 8 of its 10 bits of fraction.

    Fewer bits compress better: so the first load of MobileNetV3-Large stays below 12 MB, 7.1 MB of
    them weights, and outputs change by no more than with float16 (0.025, benchmarks/RESULTS.md).
    """
    largest = 65000  # float16 ends at 65504
    halves = np.clip(values, -largest, largest).astype(np.float16)
    if halves.size < MANY:
        return halves
    bits = halves.view(np.uint16)
    return ((bits + 1 + (bits >> 2 & 1)) & 0xFFFC).view(np.float16)  # halves to the even neighbour


# ---- the folder ----

def network_of_page(folder):
    """Return the name of the network of the page in a folder, None if it contains no page."""
    try:
        network = json.loads((folder / MARK).read_text("utf-8"))["network"]
        page = isinstance(network["version"], str) and re.fullmatch(NETWORK, network["file"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return network["file"] if page else None


def require_folder(folder):
    """Raise InputError if a folder contains anything but an earlier page."""
    if folder.exists() and not network_of_page(folder) and any(folder.iterdir()):
        raise InputError(f"--web {folder}: the folder is not empty and contains no earlier page; "
                         "name another one")


def write_folder(folder, network, facts, runtime, runtime_version):
    """Write the page and return (its version, compressed bytes of the first load).

    `network` are the bytes of the ONNX file, `facts` those of `page_facts` with `network_facts` as
    `network`; `runtime` is {name: bytes}. The network of an earlier page is deleted.
    """
    name, earlier = f"network-{sha256(network)[:8]}.onnx", network_of_page(folder)
    first = [name, *(file for file in runtime if file not in LATER)]
    files = {"index.html": build_index(first), "manifest.webmanifest": build_manifest(),
             **{f"icon-{side}.png": draw_icon(side) for side in (192, 512)},
             name: network, **runtime}
    facts["network"].update(file=name, runtime=runtime_version, date=date.today().isoformat())
    facts["network"]["version"] = digest({**files, MARK: to_json(facts)}).hex()[:8]
    files[MARK] = to_json(facts)
    files["worker.js"] = build_worker(files)
    # Files that name others come after these: wherever this stops, an earlier page stays whole.
    for file in sorted(files, key=lambda file: (file in NAMING, file)):
        with atomic_path(folder / file) as temporary:
            temporary.write_bytes(files[file])
    if earlier and earlier != name:
        (folder / earlier).unlink(missing_ok=True)
    return facts["network"]["version"], sum(len(gzip.compress(data))
                                            for name, data in files.items() if name not in LATER)


def to_json(value):
    """Return a value as the bytes of a JSON file."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def digest(files):
    """Return the SHA-256 of files {name: bytes}."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for name in sorted(files)
                                   for part in (name.encode(), files[name]))).digest()


def build_index(needed):
    """Return app.py's page with the offline scripts, and links that preload the files `needed`."""
    scripts = "".join(f'<script src="{name}"></script>\n' for name in SCRIPTS)
    body = read_html(HERE / "app.html", {'<script src="app.js"></script>\n': scripts})
    policy = f"{POLICY}; {inline_sources(body)}".replace(
        "script-src", "script-src 'self' 'wasm-unsafe-eval'")
    links = "\n".join(PRELOAD[Path(name).suffix] % name for name in needed)
    return body.replace(b'<link rel="icon" href="data:,">', (HEAD % (policy, links)).encode())


def build_manifest():
    """Return the manifest, with which the page can be installed on the home screen."""
    icons = [{"src": f"icon-{side}.png", "sizes": f"{side}x{side}", "type": "image/png",
              "purpose": "any maskable"} for side in (192, 512)]
    return to_json({"name": "What plant is this?", "short_name": "Herbarium", "start_url": "./",
                    "scope": "./", "display": "standalone", "background_color": PAPER,
                    "theme_color": GREEN, "icons": icons})


def build_worker(files):
    """Return the service worker with the names and hashes of the files that it stores."""
    hashes = {"./" if name == "index.html" else name:
              base64.b64encode(hashlib.sha256(data).digest()).decode()
              for name, data in files.items()}
    later = {name: hashes.pop(name) for name in LATER}
    text = (HERE / "worker.js").read_text("utf-8")
    for name, value in (("FILES", hashes), ("LATER", later)):
        text = text.replace(f"{name} = {{}}", f"{name} = {json.dumps(value)}")
    return text.encode()


def draw_icon(side):
    """Return a PNG of `side` pixels: a leaf, inside the area that phones do not crop."""
    large = 4 * side
    image = Image.new("RGB", (large, large), GREEN)
    angle = np.linspace(0, np.pi, 50)
    bulge = 0.16 * np.sin(angle) ** 1.2
    along = np.linspace(-0.27, 0.27, 50)
    outline = [(0.5 + x, 0.46 + y) for x, y in [*zip(bulge, along, strict=True),
                                                *zip(-bulge[::-1], along[::-1], strict=True)]]
    draw = ImageDraw.Draw(image)
    draw.polygon([(x * large, y * large) for x, y in outline], fill=PAPER)
    draw.line([(large / 2, 0.32 * large), (large / 2, 0.82 * large)], GREEN, large // 50)
    draw.line([(large / 2, 0.73 * large), (large / 2, 0.82 * large)], PAPER, large // 40)
    return encode(image.resize((side, side), Image.Resampling.LANCZOS), "PNG")


# ---- serving ----

def folder_routes(folder):
    """Return the routes of a page server for a folder that `write_folder` wrote, compressed."""
    if not network_of_page(folder):
        raise InputError(f"--web {folder} contains no page; write one with "
                         f"{script_command('export.py', '--web', folder)}")
    routes = {("GET", f"/{path.name}"): file_route(path) for path in sorted(folder.iterdir())
              if path.is_file()}
    return {("GET", "/"): routes["GET", "/index.html"], **routes}


def file_route(path):
    """Return the route of one file; the page itself contains the policy for its scripts."""
    kind = TYPES.get(path.suffix) or guess_type(path.name)[0] or "application/octet-stream"
    reply = Reply(gzip.compress(path.read_bytes(), 6), kind, policy="frame-ancestors 'none'",
                  encoding="gzip", keep_seconds=AGAIN if path.suffix in PRELOAD else 0)
    return lambda request: reply

"""The page of a report: its numbers and photographs put into report.html, one file that needs nothing else."""
import base64
import json

from PIL import Image

from config import ROOT
from images import encode
from utils import write_text

THUMBNAIL = 168  # pixels; 7 to 9 kB each, so that two hundred mistakes, twice shown, stay below 5 MB


def write_page(path, report, classes, photos, views, heated, examples):
    """Write the page of a report, numbers as in report.json.

    `photos` are rows about mistaken photographs, `views` and `heated` their pictures, uint8 (H, W, 3), without and
    with the heat of Grad-CAM; `examples` maps labels to a picture of a photograph that was named rightly.
    """
    data = {"report": report, "names": [one._asdict() for one in classes],
            "photos": [{**photo, "view": data_uri(view), "heat": data_uri(heat)}
                       for photo, view, heat in zip(photos, views, heated, strict=True)],
            "examples": {label: data_uri(view) for label, view in examples.items()}}
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")  # no name can end the script element
    write_text(path, (ROOT / "evaluation/report.html").read_text("utf-8").replace("{{data}}", text))


def data_uri(picture):
    """Return a picture, uint8 (H, W, 3), as the address of a small JPEG that holds itself."""
    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return f"data:image/jpeg;base64,{base64.b64encode(encode(image, quality=80)).decode()}"

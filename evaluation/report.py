"""Write the page of a report: report.html with scripts, numbers and images in a single file."""
import base64
import json

from PIL import Image

from config import ROOT
from images import encode
from utils import write_text

SCRIPTS = ("web/page.js", "evaluation/report_text.js", "evaluation/report_charts.js",
           "evaluation/report.js")
THUMBNAIL_SIDE = 168  # pixels; 7 to 9 kB each, so 200 mistakes with heat maps are below 5 MB


def write_page(path, report, classes, photos, views, overlays, examples):
    """Write the page of a report, which has the numbers of report.json.

    `photos` are rows about misclassified photographs; `views` and `overlays` are their images,
    uint8 (H, W, 3), without and with the Grad-CAM heat map. `examples` maps labels to the view of a
    correctly classified photograph.
    """
    data = {"report": report, "names": [plant._asdict() for plant in classes],
            "photos": [{**photo, "view": data_uri(view), "heat": data_uri(heat)}
                       for photo, view, heat in zip(photos, views, overlays, strict=True)],
            "examples": {label: data_uri(view) for label, view in examples.items()}}
    # escaped, so that no name in the data can end the script element
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    scripts = "".join((ROOT / name).read_text("utf-8") for name in SCRIPTS)
    template = (ROOT / "evaluation/report.html").read_text("utf-8").replace("{{scripts}}", scripts)
    write_text(path, template.replace("{{data}}", text))


def data_uri(view):
    """Return a view, uint8 (H, W, 3), as a data: URI of a small JPEG."""
    image = Image.fromarray(view)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    return f"data:image/jpeg;base64,{base64.b64encode(encode(image, quality=80)).decode()}"

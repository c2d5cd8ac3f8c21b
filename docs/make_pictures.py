"""Make the pictures of the README: the scripts' real output on the drawn flora, in Chromium.

    python docs/make_pictures.py FOLDER    # first runs quickstart.py there, which takes minutes
    docs: 5 pictures, 3,120 kB

FOLDER is kept; a quickstart that has run there is not repeated. Needs Chromium, chromedriver and
pip install -r requirements.txt; no network.
"""
import argparse
import base64
import io
import os
import re
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw
from selenium import webdriver

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
import predict
from config import ROOT
from evaluation.predictor import load_predictor
from images import encode
from quickstart_flora.photographs import FLOWER_COLOURS, photograph
from utils import InputError, atomic_path, read_table, run

FILMED, ON_PHONES = "Tintinnabulum pendulum", ("Globus spinosus", "Corona multiradiata")
ONE_PLANT = "Stella quinquepetala"  # photographed twice
PROBABILITY = 0.97  # of the photographs shown: typical of right predictions
WIDTH, HEIGHT = 1200, 900  # pixels of a page; the README shows it 400 to 800 wide
GIF_WIDTH = 720  # pixels
CURSOR = ("<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 12 18'>"
          "<path d='M1 1v14l3.5-3 2.3 5 2.2-1-2.3-5H11z' stroke='white'/></svg>")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda text: Path(text).absolute(),
                        help="folder for the quickstart")
    folder = parser.parse_args(argv).folder
    os.environ["SE_OFFLINE"] = "true"  # Selenium would look for a newer browser
    subprocess.run([sys.executable, ROOT / "quickstart.py", "--quickstart_offline",
                    "--quickstart_dir", folder], check=True)
    settings = "--settings", folder / "settings.json"
    report = next((folder / "runs").glob("*/report.html"))
    photographs = choose_photographs(report.with_name("predictions.csv"), folder / "dataset")
    s, _ = config.parse(["--settings", str(folder / "settings.json")], predict.__file__, "")
    network = load_predictor(s), s
    pair = draw_plant(folder / "one_plant", *network)
    coarse = draw_coarse(folder / "coarse", *network)
    saved = [save("report.png", screenshot(report.as_uri(), "#pairs img"))]
    with ExitStack() as stack:
        app = stack.enter_context(served(ROOT / "app.py", *settings, "--no-open_browser"))
        saved.append(save_gif("app.gif", film_app(app, photographs[FILMED], coarse, pair)))
        phones = [show_phone(app, photographs[latin], dark)
                  for latin, dark in zip(ON_PHONES, (False, True), strict=True)]
        saved.append(save("app_phone.png", side_by_side(phones)))
        review = stack.enter_context(served(
            ROOT / "dataset_preparation/cleaning/review.py", *settings, "--review_port", "0",
            "--no-open_browser"))
        saved.append(save("review.png", screenshot(review, "#grid img, main img")))
        board = stack.enter_context(served(
            "-m", "tensorboard.main", "--port", "0", "--logdir", folder / "runs"))
        saved.append(save("tensorboard.png", show_board(board)))
    size = sum(path.stat().st_size for path in saved)
    print(f"docs: {len(saved)} pictures, {size // 1000:,} kB")


def choose_photographs(table, dataset):
    """Return {class: the correctly predicted test photograph of about typical probability}."""
    rows = [row for row in read_table(table)
            if row["latin"] == row["predicted"] and not row["reason"]]
    rows.sort(key=lambda row: -abs(float(row["probability"]) - PROBABILITY))
    return {row["latin"]: dataset / row["path"] for row in rows}  # the last of a class wins


def draw(folder, latin, colour=None, count=40):
    """Draw the photographs of a kind that a folder lacks and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{latin} {number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.is_file():
            path.write_bytes(encode(photograph(latin, np.random.default_rng(number), colour)))
    return paths


def draw_coarse(folder, predictor, s):
    """Return a drawn photograph of which the network answers the family alone, rightly."""
    families = {plant.latin: plant.family for plant in predictor.classes}
    for latin, family in families.items():
        for one in predict.predict(draw(folder, latin), predictor, s):
            if one["taxonRank"] == "family" and one["scientificName"] == family:
                return one["photo"]
    raise InputError(f"{folder}: no photograph is answered with its family alone")


def draw_plant(folder, predictor, s):
    """Draw photographs of one plant; return one of which the network is not sure, and another.

    Together they are named rightly. Raises InputError where no two are like that.
    """
    for number, colour in enumerate(FLOWER_COLOURS):
        paths = draw(folder / str(number), ONE_PLANT, colour)
        unsure = [one["photo"] for one in predict.predict(paths, predictor, s)
                  if one["reason"] == "risk" and not one["taxonRank"]]
        for pair in product(unsure, paths):
            [one] = predict.predict_together([(ONE_PLANT, pair)], predictor, s)
            if one["scientificName"] == ONE_PLANT and pair[0] != pair[1]:
                return pair
    raise InputError(f"{folder}: no photograph is not sure alone and named with another")


# ---- programs and pages ----

@contextmanager
def served(*arguments):
    """Run Python with arguments and yield the address that it prints; end it afterwards."""
    process = subprocess.Popen([sys.executable, "-u", *map(str, arguments)], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        for line in process.stdout:
            if found := re.search(r"http://(127\.0\.0\.1|localhost):\S+", line):
                yield found[0]
                return
        raise InputError(f"{arguments[0]} ended before it printed an address")
    finally:
        process.kill()
        process.wait()


@contextmanager
def chromium(width=WIDTH, height=HEIGHT, scale=1.0, dark=False, phone=False):
    """Yield a driver whose page has width x height CSS pixels, each `scale` pixels wide."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage",
                     "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options)
    try:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone})
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        yield driver
    finally:
        driver.quit()


def wait(driver, script, seconds=240):
    """Wait until a script returns true; raise InputError where it does not in time."""
    for _ in range(seconds * 10):
        if driver.execute_script(f"return {script}"):
            time.sleep(0.6)  # the page fades elements in
            return
        time.sleep(0.1)
    raise InputError(f"{driver.current_url}: not true within {seconds} s: {script}")


def wait_for(driver, selector):
    """Wait until a selector matches and all visible images are loaded."""
    wait(driver, f"document.querySelector({selector!r}) && [...document.images].every("
                 "image => image.complete || image.loading === 'lazy' "
                 "&& image.getBoundingClientRect().top > innerHeight)")


def capture(driver):
    """Return the visible part of the page as an RGB image."""
    return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


def screenshot(address, selector):
    """Return the picture of a page once a selector matches."""
    with chromium() as driver:
        driver.get(address)
        wait_for(driver, selector)
        return capture(driver)


def show_board(address, size=(1500, 1180)):  # three rows of three cards
    """Return TensorBoard's curves and images without its side pane, once they are drawn."""
    tags = "(accuracy|loss|macro_f1)/(train|val)$|gradient|learning|test/(confusion|mistakes)"
    with chromium(*size) as driver:
        driver.get(f"{address}?tagFilter={quote(tags)}#timeseries")
        wait(driver, "document.querySelectorAll("
                     "'line-chart canvas, line-chart svg path').length > 3")
        driver.execute_script("""
            [...document.querySelectorAll('mat-checkbox')]
                .find(box => box.innerText.includes('step selection'))
                .querySelector('input').click();
            document.querySelector('[aria-label="Close side pane"]').click();""")
        time.sleep(6)  # TensorBoard has no sign that a chart is complete
        return capture(driver).resize((WIDTH, WIDTH * size[1] // size[0]),
                                      Image.Resampling.LANCZOS)


# ---- the app ----

def film_app(address, photo, coarse, pair):
    """Return [(image, milliseconds)] of photographs dragged onto the page and predicted.

    First comes a sure answer with its heat map, then one of which only the family is sure, then a
    photograph of which the network is not sure, and the same with another of the plant, answered
    together.
    """
    frames = []
    with chromium(1080, 780) as driver:
        def show(milliseconds, selector):
            wait_for(driver, selector)
            frames.append((capture(driver), milliseconds))
        driver.get(address)
        show(1200, "#start")
        frames += drag(driver, photo, steps=6)
        show(2800, ".names li")
        driver.find_element("id", "show-heat").click()
        show(2200, ".heat.on")
        driver.find_element("id", "show-heat").click()
        for unsure in (coarse, pair[0]):
            frames += drag(driver, unsure)
            show(3200, "#unsure")
        frames += drag(driver, *pair)
        show(3200, "#together")
        driver.find_element("css selector", "[data-language=ru]").click()
        show(2600, ".names li")
    return frames


def drag(driver, *photos, steps=3):
    """Drop photographs onto the page; return [(image, milliseconds)] of the way there."""
    frames = []
    driver.execute_script(DRAG, [data_uri(photo) for photo in photos],
                          f"data:image/svg+xml,{CURSOR}")
    wait(driver, "ghosts.every(ghost => ghost.complete)")
    for step in range(steps):
        driver.execute_script("move(arguments[0])", step / (steps - 1))
        frames.append((capture(driver), 110 if step < steps - 1 else 500))
    driver.execute_script("drop()")
    return frames


DRAG = """
const [photos, cursor] = arguments, hand = new Image();
let entered = false;
window.ghosts = photos.map(photo => Object.assign(new Image(), { src: photo }));
hand.src = cursor;
for (const ghost of ghosts) Object.assign(ghost.style, {position: "fixed", width: "190px",
  opacity: .85, zIndex: 9, borderRadius: "6px", boxShadow: "0 12px 30px rgb(0 0 0 / .3)"});
Object.assign(hand.style, {position: "fixed", width: "22px", zIndex: 10});
document.body.append(...ghosts, hand);
window.move = part => {
  const x = 1000 - 430 * part, y = 640 - 260 * part * (2 - part);
  ghosts.forEach((ghost, i) => Object.assign(ghost.style,
    {left: `${x - 95 + 70 * i}px`, top: `${y - 80 + 50 * i}px`}));
  Object.assign(hand.style, {left: `${x}px`, top: `${y}px`});
  if (part > .3 && !entered) {
    entered = true;
    dispatchEvent(new DragEvent("dragenter"));
  }
};
window.drop = () => {
  const data = new DataTransfer();
  photos.forEach((photo, i) => {
    const bytes = Uint8Array.from(atob(photo.split(",")[1]), letter => letter.charCodeAt());
    data.items.add(new File([bytes], `${i}.jpg`, {type: "image/jpeg"}));
  });
  [...ghosts, hand].forEach(image => image.remove());
  dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true}));
};"""


def data_uri(path):
    """Return a JPEG file as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def show_phone(address, photo, dark):
    """Return the app with a prediction on a phone; if dark, in Russian and with the heat map."""
    with chromium(390, 844, 1.25, dark, phone=True) as driver:
        driver.get(address)
        wait_for(driver, "#start")
        if dark:
            driver.find_element("css selector", "[data-language=ru]").click()
        driver.find_element("css selector", "input[type=file]").send_keys(str(photo))
        wait_for(driver, ".names li")
        if dark:
            driver.find_element("id", "show-heat").click()
            wait_for(driver, ".heat.on")
        return capture(driver)


def side_by_side(images, gap=40, radius=37):
    """Return images of one size beside each other, with rounded corners, RGBA."""
    width, height = images[0].size
    sheet = Image.new("RGBA", (len(images) * (width + gap) - gap, height))
    mask = Image.new("L", (4 * width, 4 * height))
    corner = 4 * width - 1, 4 * height - 1  # four times as large, for smooth edges
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, *corner), 4 * radius, fill=255)
    mask = mask.resize((width, height), Image.Resampling.LANCZOS)
    for column, image in enumerate(images):
        sheet.paste(image, (column * (width + gap), 0), mask)
    return sheet


# ---- files ----

def save(name, image):
    """Write an image to docs/ as a PNG and return its path."""
    path = ROOT / "docs" / name
    with atomic_path(path) as temporary:
        image.save(temporary, "PNG", optimize=True)
    return path


def save_gif(name, frames):
    """Write frames [(image, milliseconds)] to docs/ as an endless GIF with one palette."""
    path = ROOT / "docs" / name
    images = [image.resize((GIF_WIDTH, GIF_WIDTH * image.height // image.width),
                           Image.Resampling.LANCZOS) for image, _ in frames]
    strip = Image.new("RGB", (GIF_WIDTH, sum(image.height for image in images)))
    for row, image in enumerate(images):
        strip.paste(image, (0, row * image.height))
    palette = strip.reduce(2).quantize(255, kmeans=2)
    first, *rest = [image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
                    for image in images]
    for number, frame in enumerate(rest):  # dithering changes also what has stayed
        before = (first, *rest)[number]
        same = (np.asarray(images[number]) == np.asarray(images[number + 1])).all(2)
        frame.paste(before, mask=Image.fromarray(same))
    with atomic_path(path) as temporary:
        first.save(temporary, "GIF", save_all=True, append_images=rest, loop=0, optimize=True,
                   duration=[milliseconds for _, milliseconds in frames])
    return path


if __name__ == "__main__":
    run(main)

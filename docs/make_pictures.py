"""Make the pictures of the README: the scripts' real output on the drawn flora, seen by a real Chromium.

    python docs/make_pictures.py FOLDER      # runs quickstart.py there first, which takes minutes unless it has run
    docs: 5 pictures, 1,414 kB

FOLDER is kept. Needs Chromium, chromedriver and pip install -r requirements.txt; no network.
"""
import argparse
import base64
import io
import re
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image, ImageDraw
from selenium import webdriver

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from config import ROOT
from utils import InputError, atomic_path, read_table, run

DROPPED, ON_PHONES = "Labella maculata", ("Globus spinosus", "Corona multiradiata")  # what the app is shown
WIDTH, HEIGHT = 1200, 900  # pixels of a page; the README shows it at 400 to 800
GIF_WIDTH = 800  # pixels
CURSOR = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 12 18'><path d='M1 1v14l3.5-3 2.3 5 2.2-1-2.3-5H11z' " \
         "stroke='white'/></svg>"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=lambda text: Path(text).absolute(), help="where quickstart.py works")
    folder = parser.parse_args(argv).folder
    subprocess.run([sys.executable, ROOT / "quickstart.py", "--quickstart_offline", "--quickstart_dir", folder],
                   check=True)
    settings = "--settings", folder / "settings.json"
    report = next((folder / "runs").glob("*/report.html"))
    typical = find_typical(report.with_name("predictions.csv"), folder / "dataset")
    made = []
    with ExitStack() as stack:
        app = stack.enter_context(served(ROOT / "app.py", *settings, "--no-open_browser"))
        made.append(save_gif("app.gif", film_app(app, typical[DROPPED])))
        phones = [show_phone(app, typical[latin], dark) for latin, dark in zip(ON_PHONES, (False, True), strict=True)]
        made.append(save("app_phone.png", side_by_side(phones)))
        review = stack.enter_context(served(ROOT / "dataset_preparation/cleaning/review.py", *settings, "--review_port",
                                            "0", "--no-open_browser"))
        made.append(save("review.png", see(review, "#grid img, main img")))
        board = stack.enter_context(served("-m", "tensorboard.main", "--port", "0", "--logdir", folder / "runs"))
        made.append(save("tensorboard.png", show_board(board)))
    made.append(save("report.png", see(report.as_uri(), "#pairs img")))
    print(f"docs: {len(made)} pictures, {sum(path.stat().st_size for path in made) // 1000:,} kB")


def find_typical(table, dataset):
    """Return {class: the test photograph of it that was named rightly with the probability nearest to 97 %}."""
    rows = sorted((row for row in read_table(table) if row["latin"] == row["answer"] and not row["reason"]),
                  key=lambda row: -abs(float(row["probability"]) - 0.97))
    return {row["latin"]: dataset / row["path"] for row in rows}


# ---- programs and pages ----

@contextmanager
def served(*arguments):
    """Run a program of Python and yield the address that it prints."""
    process = subprocess.Popen([sys.executable, "-u", *map(str, arguments)], stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        for line in process.stdout:
            if found := re.search(r"http://(127\.0\.0\.1|localhost):\S+", line):
                yield found[0]
                return
        raise InputError(f"{arguments[0]} ended without an address")
    finally:
        process.kill()
        process.wait()


@contextmanager
def chromium(width=WIDTH, height=HEIGHT, scale=1.0, dark=False, phone=False):
    """Yield a driver whose page has so many CSS pixels, each `scale` pixels wide."""
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options)
    try:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone})
        driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": phone})
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]})
        yield driver
    finally:
        driver.quit()


def wait(driver, script, seconds=240):
    """Return the first true value of a script, asked again and again; raise InputError where none comes in time."""
    for _ in range(seconds * 10):
        if found := driver.execute_script(f"return {script}"):
            time.sleep(0.6)  # what fades in has done so
            return found
        time.sleep(0.1)
    raise InputError(f"{driver.current_url} never came to {script}")


def wait_for(driver, selector):
    """Wait until a selector finds something and all pictures in sight are there."""
    wait(driver, f"document.querySelector({selector!r}) && [...document.images].every(image => image.complete || "
                 "image.loading === 'lazy' && image.getBoundingClientRect().top > innerHeight)")


def shot(driver):
    """Return what the page shows as an RGB image."""
    return Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")


def see(address, selector):
    """Return the picture of a page once it is complete."""
    with chromium() as driver:
        driver.get(address)
        wait_for(driver, selector)
        return shot(driver)


def show_board(address):
    """Return TensorBoard's curves and pictures, without its settings, once it has drawn them."""
    with chromium(1500, 850) as driver:  # two rows of three cards
        driver.get(f"{address}?tagFilter=(accuracy%7Closs%7Cmacro_f1)%2F(train%7Cval)$%7Cconfusion%7Cmistakes#timeseries")
        wait(driver, "document.querySelectorAll('line-chart canvas, line-chart svg path').length > 3")
        driver.execute_script("""
            [...document.querySelectorAll('mat-checkbox')].find(box => box.innerText.includes('step selection'))
                .querySelector('input').click();
            document.querySelector('[aria-label="Close side pane"]').click();""")
        time.sleep(6)  # nothing in it says that a drawing is complete
        return shot(driver).resize((WIDTH, WIDTH * 850 // 1500), Image.Resampling.LANCZOS)


# ---- the app ----

def film_app(address, photo):
    """Return [(image, milliseconds)]: a photograph is dragged onto the page, named, and explained."""
    frames = []
    with chromium(1080, 720) as driver:
        driver.get(address)
        wait_for(driver, "#give")
        frames.append((shot(driver), 1200))
        driver.execute_script(DRAG, data_uri(photo), f"data:image/svg+xml,{CURSOR.replace('#', '%23')}")
        wait(driver, "ghost.complete")
        for step in range(6):
            driver.execute_script("move(arguments[0])", step / 5)
            frames.append((shot(driver), 110 if step < 5 else 500))
        driver.execute_script("drop()")
        wait_for(driver, ".names li")
        frames.append((shot(driver), 3200))
        driver.find_element("id", "warm").click()
        wait_for(driver, ".heat.on")
        frames.append((shot(driver), 2600))
        driver.find_element("css selector", "[data-language=ru]").click()
        wait_for(driver, ".names li")
        frames.append((shot(driver), 2600))
    return frames


DRAG = """
const [photo, cursor] = arguments, hand = new Image();
window.ghost = new Image();
ghost.src = photo; hand.src = cursor;
Object.assign(ghost.style, {position: "fixed", width: "190px", opacity: .85, zIndex: 9, borderRadius: "6px",
  boxShadow: "0 12px 30px rgb(0 0 0 / .3)"});
Object.assign(hand.style, {position: "fixed", width: "22px", zIndex: 10});
document.body.append(ghost, hand);
window.move = part => {
  const x = 1000 - 430 * part, y = 640 - 260 * part * (2 - part);
  Object.assign(ghost.style, {left: `${x - 95}px`, top: `${y - 80}px`});
  Object.assign(hand.style, {left: `${x}px`, top: `${y}px`});
  if (part > .3 && !window.entered) { window.entered = true; dispatchEvent(new DragEvent("dragenter")); }
};
window.drop = () => {
  const bytes = Uint8Array.from(atob(photo.split(",")[1]), letter => letter.charCodeAt()), data = new DataTransfer();
  data.items.add(new File([bytes], "photo.jpg", {type: "image/jpeg"}));
  ghost.remove(); hand.remove();
  dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true}));
};"""


def data_uri(path):
    """Return a JPEG file as an address that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"


def show_phone(address, photo, dark):
    """Return what a phone shows of an answer; in the dark it is in Russian, with the heat laid over the photograph."""
    with chromium(390, 844, 1.5, dark, phone=True) as driver:
        driver.get(address)
        wait_for(driver, "#give")
        if dark:
            driver.find_element("css selector", "[data-language=ru]").click()
        driver.find_element("css selector", "input[type=file]").send_keys(str(photo))
        wait_for(driver, ".names li")
        if dark:
            driver.find_element("id", "warm").click()
            wait_for(driver, ".heat.on")
        return shot(driver)


def side_by_side(images, gap=48, radius=44):
    """Return the images beside each other with rounded corners, clear around them."""
    width, height = images[0].size
    sheet = Image.new("RGBA", (len(images) * (width + gap) - gap, height))
    mask = Image.new("L", (4 * width, 4 * height))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * width - 1, 4 * height - 1), 4 * radius, fill=255)
    for place, image in enumerate(images):
        sheet.paste(image, (place * (width + gap), 0), mask.resize(image.size, Image.Resampling.LANCZOS))
    return sheet


# ---- files ----

def save(name, image):
    """Write a picture as a PNG of at most 256 colours, one of them clear where the image is, and return its path."""
    path, rgb = ROOT / "docs" / name, image.convert("RGB")
    small = dithered(rgb, rgb.quantize(255))
    if image.mode == "RGBA":
        small.paste(255, mask=image.getchannel("A").point(lambda alpha: 255 * (alpha < 128)))
    with atomic_path(path) as temporary:
        small.save(temporary, "PNG", optimize=True, **({"transparency": 255} if image.mode == "RGBA" else {}))
    return path


def save_gif(name, frames):
    """Write frames [(image, milliseconds)] as an endless GIF with one palette and return its path."""
    path = ROOT / "docs" / name
    images = [image.resize((GIF_WIDTH, GIF_WIDTH * image.height // image.width), Image.Resampling.LANCZOS)
              for image, _ in frames]
    strip = Image.new("RGB", (GIF_WIDTH, sum(image.height for image in images)))
    for place, image in enumerate(images):
        strip.paste(image, (0, place * image.height))
    first, *rest = (dithered(image, strip.quantize(255)) for image in images)
    with atomic_path(path) as temporary:
        first.save(temporary, "GIF", save_all=True, append_images=rest, loop=0, optimize=True,
                   duration=[milliseconds for _, milliseconds in frames])
    return path


def dithered(image, palette):
    """Return an RGB image in the colours of another, those between them mixed from dots."""
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


if __name__ == "__main__":
    run(main)

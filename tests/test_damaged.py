"""JPEGs that decode although data is missing are found by cleaning, predict.py and the page."""
import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from app import post_photograph
from dataset_preparation.cleaning.inspection import inspect
from images import BadImage, View, find_damage, open_image
from predict import read_view
from tests.conftest import draw, jpeg, shared

RULE = {"min_side": 64, "output_side": 64, "jpeg_quality": 92, "max_file_mb": 100.0,
        "max_megapixels": 80.0, "decode_seconds": 8.0, "accepted_modes": ("RGB",),
        "converted_modes": ("L",)}
END = b"\xff\xd9"  # the marker that closes a JPEG


def noisy(seed):
    """Return a picture whose JPEG has much data everywhere."""
    noise = np.random.default_rng(seed).integers(0, 60, (600, 600, 3), np.uint8)
    return Image.fromarray(np.asarray(draw(seed, (600, 600))) // 2 + noise)


def scan_start(data):
    start = data.index(b"\xff\xda")
    return start + 2 + int.from_bytes(data[start + 2:start + 4], "big")


def cut(data, share):
    start = scan_start(data)
    return data[:start + int((len(data) - start) * share)] + END


def lose(data, count):
    middle = (scan_start(data) + len(data)) // 2
    return data[:middle] + data[middle + count:]


def zero(data, count):
    middle = (scan_start(data) + len(data)) // 2
    return data[:middle] + bytes(count) + data[middle + count:]


def zero_end(data, share):
    count = int((len(data) - scan_start(data)) * share)
    return data[:-count] + bytes(count - 2) + END


DAMAGES = {  # (progressive, the damage)
    "cut at 50 %": (False, lambda data: cut(data, 0.5)),
    "cut at 90 %": (False, lambda data: cut(data, 0.9)),
    "3 kB lost": (False, lambda data: lose(data, 3000)),
    "4 kB zeroed": (False, lambda data: zero(data, 4000)),
    "progressive, cut at 25 %": (True, lambda data: cut(data, 0.25)),
    "progressive, 4 kB zeroed": (True, lambda data: zero(data, 4000)),
    "last 40 % zeroed": (False, lambda data: zero_end(data, 0.4))}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_jpeg_is_marked_everywhere(name, tmp_path):
    progressive, damage = DAMAGES[name]
    data = damage(jpeg(noisy(1), progressive=progressive))
    open_image(data, 80)  # Pillow swallows the warning
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    result = inspect(path, tmp_path / "cleaned.jpg", RULE)
    assert result["reason"].startswith("damaged: ")
    assert result["fingerprint"] and (tmp_path / "cleaned.jpg").exists()  # a person may keep it
    s = SimpleNamespace(max_megapixels=80.0, max_file_mb=100.0)
    for source in (path, data):
        with pytest.raises(BadImage, match="damaged"):
            read_view(source, View(64), s)
    reply = post_photograph(SimpleNamespace(view=View(64)), s, SimpleNamespace(body=data))
    assert reply.status == 422 and b'"broken"' in reply.body


def test_harmless_oddities_of_whole_jpegs_are_no_damage():
    data = jpeg(noisy(2))
    comment = b"\xff\xfe\x00\x06text"
    for odd in (data, jpeg(noisy(2), progressive=True), jpeg(noisy(2).convert("L")),
                jpeg(noisy(2).convert("CMYK")), jpeg(noisy(2), subsampling=2),
                data + b"behind the end", data[:2] + comment + data[2:],
                data[:2] + comment + bytes(16) + comment + data[2:]):
        open_image(odd, 80)
        assert find_damage(odd) == ""


def junk(data):
    """Return a JPEG with bytes that are no marker and a comment after its first segment."""
    end = 4 + int.from_bytes(data[4:6], "big")
    return data[:end] + b"junk" + b"\xff\xfe\x00\x06text" + data[end:]


@pytest.mark.parametrize("name", DAMAGES)
def test_a_harmless_warning_does_not_hide_damage(name):
    progressive, damage = DAMAGES[name]
    whole = jpeg(noisy(1), progressive=progressive)
    assert find_damage(junk(whole)) == "" != find_damage(junk(damage(whole)))
    scans = [i for i in range(len(whole)) if whole[i:i + 2] == b"\xff\xda"]
    if progressive:  # a comment between two scans, and pixels lost before it
        later = whole[:scans[2]] + b"\xff\xfe\x00\x06text" + whole[scans[2]:]
        assert find_damage(junk(later)) == ""


@pytest.mark.photos
def test_real_photographs_are_whole_and_their_damaged_copies_are_found():
    paths = sorted(shared("photos/flowers").rglob("*.jpg"))
    assert len(paths) == 720
    assert [path.name for path in paths if find_damage(path.read_bytes())] == []
    marked = []
    for i, (progressive, damage) in enumerate(DAMAGES.values()):
        for path in paths[i::36]:
            image = Image.open(path).convert("RGB")
            scale, data = 900 / min(image.size), io.BytesIO()
            image.resize([round(scale * side) for side in image.size]).save(
                data, "JPEG", quality=88, progressive=progressive)
            marked.append(bool(find_damage(damage(data.getvalue()))))
    print(f"damaged JPEGs marked: {sum(marked)} of {len(marked)}")
    assert sum(marked) >= 0.98 * len(marked)
    oddity = shared("photos/odd_files") / "photoshop-200dpi-broken.jpg"
    assert find_damage(oddity.read_bytes()) == ""

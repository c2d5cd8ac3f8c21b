"""Quality scores of a photograph, computed at 256 pixels, which order the review.

A score never rejects a photograph; it only moves it forward in the review.
"""
import numpy as np

from images import resize_shorter_side

MEASURES = ("sharpness", "brightness", "emptiness", "paper")
TILES = 6  # along each side; macro photographs are sharp in a few places only
SMALLEST = 64  # pixels; a smaller side is enlarged first, because every tile needs some pixels

# Word shown, column, its value at suspicion 0, at suspicion 1; `suspected` lists words from 0.5 on.
# Chosen (and tested) on 720 photographs of flowers and degraded versions of them; those of label
# and outlier on planted label errors and OOD pictures (benchmarks/label_errors.py).
SUSPICIONS = (
    ("blurred", "sharpness", 0.45, 0.15),
    ("dark", "brightness", 0.18, 0.06),
    ("bright", "brightness", 0.78, 0.92),
    ("long", "aspect", 2.0, 4.0),
    ("empty", "emptiness", 0.75, 0.95),
    ("drawing or sheet", "paper", 0.4, 0.8),
    ("label", "label_score", 0.6, 0.0),
    ("outlier", "outlier_score", 0.22, 0.05),  # 0.5: twice as far from its neighbours as usual
    ("borderline", "near_alike", 0.0, 1.0),
)


def measure(image):
    """Return {name in MEASURES: float} of an RGB PIL image of about 256 px on the shorter side.

    `sharpness` is the edge strength (root mean square of the Laplacian) over the contrast, in the
    sharpest of TILES x TILES tiles: about 1 in a sharp photograph. `brightness` is the mean grey in
    [0, 1]; `emptiness` the share of small squares without detail; `paper` the share of light,
    nearly grey pixels, as in herbarium sheets, drawings and text.
    """
    if min(image.size) < SMALLEST:
        image = resize_shorter_side(image, SMALLEST)
    grey = np.asarray(image.convert("L"), np.int16)
    centre = grey[1:-1, 1:-1]
    edges = 4 * centre - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    tile = centre.shape[0] // TILES, centre.shape[1] // TILES
    contrast = tile_deviations(centre, *tile)
    strength = np.sqrt(tile_means(np.square(edges, dtype=np.float32), *tile))
    red, green, blue = (np.asarray(band, np.int16) for band in image.reduce(4).split())
    colour = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    light = (red + green + blue > 3 * 165) & (colour < 64)
    sharpness = np.where(contrast > 8, strength / (contrast + 4), 0).max()
    emptiness = (tile_deviations(grey, 8, 8) < 3).mean()
    values = sharpness, grey.mean() / 255, emptiness, light.mean()
    return {name: round(float(value), 3) for name, value in zip(MEASURES, values, strict=True)}


def tile_means(values, height, width):
    """Return the means of the tiles of `height` x `width` of a two-dimensional array."""
    rows, columns = values.shape[0] // height, values.shape[1] // width
    whole = values[:rows * height, :columns * width]  # drop the remainder at the right and bottom
    tiles = whole.reshape(rows, height, columns, width)
    return tiles.sum(1, dtype=np.float32).sum(-1) / (height * width)


def tile_deviations(values, height, width):
    """Return the standard deviations of the tiles of a two-dimensional array."""
    squares = tile_means(np.square(values, dtype=np.float32), height, width)
    return np.sqrt(np.maximum(squares - tile_means(values, height, width) ** 2, 0))


def suspect(row):
    """Return (suspicion in [0, 1], words joined by ", ") of a row of cleaned.csv."""
    found = {}
    for word, column, harmless, certain in SUSPICIONS:
        if row.get(column, "") != "":
            share = (float(row[column]) - harmless) / (certain - harmless)
            found[word] = min(1.0, max(0.0, share))
    if row["status"] == "review":
        found["several names"] = 1.0
    words = sorted((word for word, value in found.items() if value >= 0.5),
                   key=lambda word: -found[word])
    return round(max(found.values(), default=0.0), 3), ", ".join(words)

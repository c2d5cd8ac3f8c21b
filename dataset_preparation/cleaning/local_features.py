"""Local features of a photograph, and the check whether two photographs show the same picture.

A photograph is described by up to `NUM_FEATURES` SIFT features (Lowe, 2004), 256 bits each, and a
small grey image. Features find photographs that were cropped, rotated, framed or pasted into a
page, unlike hashes of the whole picture. The grey images decide: after alignment, their pixels must
agree nearly everywhere. Those of one plant a moment later agree in part.
"""
from typing import NamedTuple

import cv2
import numpy as np

cv2.setNumThreads(1)  # cleaning runs one process per core
SIDE = 160  # pixels of the shorter side of the small grey image
LONGEST = 4  # times the shorter side; longer pictures are reduced further
NUM_FEATURES = 300
CELLS = 8  # features are taken from 8 x 8 cells in turn, so that text on a page does not take all
STEPS = 32  # stored positions per pixel and degree
BITS = 256
# The search sorts by words of bits; shuffled, each word is an unbiased sample of a feature.
SHUFFLE = np.random.default_rng(0).permutation(BITS)

ALIKE = 64  # bits of 256 by which matching features differ at most
MIN_INLIERS = 6  # with fewer, an alignment is chance
ALIGNED = 2.5  # pixels, largest error of a match's position
WINDOW = 15  # pixels, side of the windows that are compared, as in structural similarity
FLAT = 5.0  # grey levels; windows with a smaller deviation are not compared
MIN_TEXTURE = 400  # pixels that must be in windows that are not flat


class Description(NamedTuple):
    """The stored description of a photograph.

    `grey` is (height, width) uint8, `SIDE` pixels on its shorter side; `points` (N, 3: x, y in its
    pixels, angle in degrees) and `bits` (N, 4 words) describe its features, the strongest of each
    cell first.
    """

    points: np.ndarray
    bits: np.ndarray
    grey: np.ndarray


class Match(NamedTuple):
    """The agreement of two photographs after alignment.

    `inliers` is the number of matching features; `alike` and `equal` are the shares in [0, 1] of
    the common textured pixels whose neighbourhoods correlate by 0.7 and by 0.95; `first_inside` is
    the share of the first photograph that is inside the second, `second_inside` the reverse;
    `differs` is the share of the common pixels in the largest region that does not correlate by
    0.8.
    """

    inliers: int = 0
    alike: float = 0.0
    equal: float = 0.0
    first_inside: float = 0.0
    second_inside: float = 0.0
    differs: float = 0.0


NO_MATCH = Match()


# ---- describing a photograph ----

def describe_image(image):
    """Return the `Description` of a PIL image."""
    grey = reduce_grey(np.asarray(image.convert("L")))
    sift = cv2.SIFT_create(contrastThreshold=0.02, enable_precise_upscale=True)
    points, descriptors = sift.detectAndCompute(grey, None)
    chosen = spread(points, grey.shape)
    if not chosen:
        descriptors = np.zeros((0, 128), np.float32)
    table = np.array([(*points[i].pt, points[i].angle) for i in chosen], np.float32)
    return Description(table.reshape(-1, 3), to_bits(descriptors[chosen]), grey)


def reduce_grey(grey):
    """Return a grey image reduced to `SIDE` pixels on its shorter side, never enlarged."""
    height, width = grey.shape
    scale = min(1, SIDE / min(grey.shape), LONGEST * SIDE / max(grey.shape))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def spread(points, shape):
    """Return the indices of `NUM_FEATURES` key points, the strongest of each cell first."""
    order = sorted(range(len(points)), key=lambda i: (-points[i].response, points[i].pt,
                                                      points[i].angle))
    taken, ranked = {}, []
    for place, i in enumerate(order):
        x, y = points[i].pt
        cell = int(x * CELLS / shape[1]), int(y * CELLS / shape[0])
        taken[cell] = taken.get(cell, -1) + 1
        ranked.append((taken[cell], place, i))
    return [i for _, _, i in sorted(ranked)[:NUM_FEATURES]]


def to_bits(descriptors):
    """Return (N, 4) uint64 of (N, 128) SIFT descriptors: two bits per value, shuffled.

    Each value is compared with the median and the upper quartile of its descriptor. This takes a
    quarter of the size and makes distances bit counts (scalar quantisation, Zhou et al. 2012).
    """
    if not len(descriptors):
        return np.zeros((0, BITS // 64), np.uint64)
    limits = np.quantile(descriptors, [0.5, 0.75], axis=1)[:, :, None]
    bits = np.hstack([descriptors > limits[0], descriptors > limits[1]])
    return pack_bits(bits[:, SHUFFLE])


def pack_bits(bits):
    """Return (N, M) booleans as (N, M / 64) uint64."""
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)


def mirror_order():
    """Return the order that turns the shuffled bits of a feature into those of its mirror image.

    A SIFT descriptor is 4 rows x 4 columns x 8 directions, relative to the direction of the
    feature. Mirroring reverses the rows across that direction, and the sign of the directions.
    """
    values = np.arange(128).reshape(4, 4, 8)[::-1][:, :, -np.arange(8) % 8].ravel()
    return np.argsort(SHUFFLE)[np.concatenate([values, values + 128])[SHUFFLE]]


MIRROR = mirror_order()


def mirror_bits(bits, order=MIRROR):
    """Return the (N, 4) uint64 bits of the mirrored features; fewer words for a part of `order`."""
    return pack_bits(np.unpackbits(bits.view(np.uint8), axis=1)[:, order])


# ---- comparing two photographs ----

def compare(first, second, same_extent=False):
    """Return the `Match` of two descriptions under the best alignment.

    With `same_extent`, for photographs whose hashes agree, two alignments without features are
    tried if those by features fail: whole picture over whole picture, plain and mirrored.
    """
    matches = []
    for mirrored in (False, True):
        matrix, inliers = align(first, second, mirrored)
        if inliers >= MIN_INLIERS:
            matches.append(measure_agreement(first, second, matrix)._replace(inliers=inliers))
    best = max(matches, key=lambda match: (match.alike, match.inliers), default=NO_MATCH)
    if same_extent and best.alike < 0.5:
        (height, width), (down, across) = first.grey.shape, second.grey.shape
        for x, shift in ((across / width, 0), (-across / width, across)):
            matrix = np.array([[x, 0, shift], [0, down / height, 0]], np.float32)
            match = measure_agreement(first, second, matrix)._replace(inliers=best.inliers)
            best = max(best, match, key=lambda one: one.alike)
    return Match(best.inliers, *(round(value, 3) for value in best[1:]))


def align(first, second, mirrored):
    """Return (2 x 3 affine matrix from the first to the second, number of features that fit it).

    Matches are mutual nearest features; RANSAC finds the affine matrix that most of them fit.
    Returns (None, 0) without one, or if it squeezes the picture.
    """
    nothing = None, 0
    bits = mirror_bits(second.bits) if mirrored else second.bits
    if min(len(first.bits), len(bits)) < MIN_INLIERS:
        return nothing
    apart = np.bitwise_count(first.bits[:, None] ^ bits[None]).sum(2, dtype=np.int16)
    nearest = apart.argmin(1)
    ours = np.arange(len(apart))
    mutual = (apart.argmin(0)[nearest] == ours) & (apart[ours, nearest] <= ALIKE)
    if mutual.sum() < MIN_INLIERS:
        return nothing
    matrix, inliers = cv2.estimateAffine2D(
        first.points[ours[mutual], :2], second.points[nearest[mutual], :2],
        ransacReprojThreshold=ALIGNED, maxIters=3000, confidence=0.995)
    if matrix is None:
        return nothing
    longer, shorter = np.linalg.svd(matrix[:, :2], compute_uv=False)
    # Nine of ten false alignments squeeze the picture by more than any edited copy.
    if shorter < 0.1 or longer > 10 or longer > 1.8 * shorter:
        return nothing
    return matrix, int(inliers.sum())


def measure_agreement(first, second, matrix):
    """Return the `Match`, without inliers, of two descriptions under an affine matrix.

    The finer grey image is warped onto the coarser one; the local correlation is measured where
    they overlap and at least one of them is not flat.
    """
    coarse, fine, full = first.grey, second.grey, np.vstack([matrix, [0, 0, 1]])
    scale = np.sqrt(abs(np.linalg.det(full[:2, :2])))
    swapped = scale < 1
    if swapped:
        coarse, fine, full, scale = fine, coarse, np.linalg.inv(full), 1 / scale
    if scale > 1.2:  # detail finer than the coarse image's pixels would alias
        fine = cv2.GaussianBlur(fine, (0, 0), 0.5 * scale)
    laid, covered = (cv2.warpAffine(
        one, full[:2], coarse.shape[::-1], flags=flags | cv2.WARP_INVERSE_MAP)
        for one, flags in ((fine, cv2.INTER_LINEAR),
                           (np.ones(fine.shape, np.uint8), cv2.INTER_NEAREST)))
    inside = min(1.0, covered.mean()), min(1.0, covered.sum() * scale ** 2 / fine.size)
    alike, equal, differs = local_correlation(coarse, laid, covered)
    return Match(0, alike, equal, *(inside[::-1] if swapped else inside), differs)


def local_correlation(one, other, covered):
    """Return the shares of textured pixels around which two images correlate by 0.7 and 0.95.

    The third result is the share of the pixels of `covered` in the `largest_region` that does not
    correlate by 0.8. The images are uint8 of one shape; only windows inside `covered` count.
    Returns (0, 0, 0) if there are fewer than `MIN_TEXTURE` such pixels: flat areas agree with
    everything.
    """
    x, y = (cv2.GaussianBlur(image, (0, 0), 1).astype(np.float32) for image in (one, other))

    def mean(values):
        return cv2.boxFilter(values, -1, (WINDOW, WINDOW), borderType=cv2.BORDER_REFLECT)
    mean_x, mean_y = mean(x), mean(y)
    varies_x, varies_y = mean(x * x) - mean_x ** 2, mean(y * y) - mean_y ** 2
    whole = cv2.erode(covered, np.ones((WINDOW, WINDOW), np.uint8),
                      borderType=cv2.BORDER_CONSTANT, borderValue=1)
    textured = (whole > 0) & (np.maximum(varies_x, varies_y) > FLAT ** 2)
    if textured.sum() < MIN_TEXTURE:
        return 0.0, 0.0, 0.0
    noise = 4.0  # grey levels squared: prevents chance correlation where one image is flat
    correlation = (mean(x * y) - mean_x * mean_y)[textured] / np.sqrt(
        np.maximum(varies_x, noise) * np.maximum(varies_y, noise))[textured]
    apart = np.zeros(one.shape, np.uint8)
    apart[textured] = correlation <= 0.8
    return (float((correlation > 0.7).mean()), float((correlation > 0.95).mean()),
            float(largest_region(apart) / covered.sum()))


def largest_region(mask):
    """Return the pixels of the largest connected region of a uint8 mask without its margin.

    The margin is half of what a window adds around a difference; it removes thin lines, too, which
    small errors of the alignment leave.
    """
    core = cv2.erode(mask, np.ones((WINDOW // 2, WINDOW // 2), np.uint8),
                     borderType=cv2.BORDER_CONSTANT, borderValue=1)
    table = cv2.connectedComponentsWithStats(core, connectivity=4)[2]
    return int(table[1:, cv2.CC_STAT_AREA].max(initial=0))

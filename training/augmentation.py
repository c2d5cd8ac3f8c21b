"""Training views: their parameters, drawn as a function of (seed, epoch, draw), and two ways to cut them from frames.

Both ways take the same parameters, and all after the cut is the same code: `crop_frames` cuts one photograph after the
other, on the CPU, `crop_resident` a whole batch from the frames in a device's memory.
"""
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import grid_sample, interpolate
from torchvision.transforms.v2 import functional as F

from training.runs import stream_seed

TRIES = 10  # to find a box that lies in the picture, as torchvision's RandomResizedCrop and RandomErasing do
BOX = 2 * TRIES + 2  # random numbers a box takes
LUMA = (0.299, 0.587, 0.114)  # weights of red, green, blue in grey (ITU-R BT.601)


class Augmentation(NamedTuple):
    """What training views are drawn by: the settings of these names; `fill` is the mean colour, for erasing."""

    image_size: int
    crop_scale_min: float
    flip: float
    trivial_augment: bool
    color_jitter: float
    erasing: float
    fill: tuple


class Views(NamedTuple):
    """The parameters of B training views, as numpy arrays."""

    boxes: np.ndarray  # (B, 4) top, left, height, width in pixels of the frame
    flipped: np.ndarray  # (B,) bool
    operations: np.ndarray  # (B,) place in OPERATIONS
    levels: np.ndarray  # (B,) strength in [-1, 1] of the operation's strongest
    jitter: np.ndarray  # (B, 3) factors of brightness, contrast, saturation
    erased: np.ndarray  # (B, 4) top, left, height, width in pixels of the view, height 0 for none


def build_augmentation(s):
    """Return the `Augmentation` of the settings."""
    return Augmentation(s.image_size, s.crop_scale_min, s.flip, s.trivial_augment, s.color_jitter, s.erasing,
                        tuple(round(255 * mean) for mean in s.mean))


# ---- drawing ----

def draw_numbers(seed, epoch, draws):
    """Return float64 (B, 2 * BOX + 8) in [0, 1): row i is a function of (seed, epoch, draws[i]) alone."""
    return np.stack([number_block(seed, epoch, draw // 1024)[draw % 1024] for draw in draws])


@lru_cache(maxsize=4)
def number_block(seed, epoch, block):
    """Return the random numbers of 1,024 draws: making them together costs 0.3 microseconds each, alone 20."""
    return np.random.default_rng(stream_seed(seed, "augmentation", epoch, block)).random((1024, 2 * BOX + 8))


def draw_views(numbers, sizes, a):
    """Return the `Views` that random numbers (B, 2 * BOX + 8) stand for, of frames of sizes (B, 2): height, width.

    The distributions are those of torchvision's RandomResizedCrop, RandomHorizontalFlip, TrivialAugmentWide,
    ColorJitter and RandomErasing.
    """
    cut, rest, erasing = np.split(numbers, [BOX, BOX + 8], axis=1)
    boxes, found = draw_boxes(cut, sizes, (a.crop_scale_min, 1.0), (3 / 4, 4 / 3))
    boxes = np.where(found[:, None], boxes, central_boxes(sizes, (3 / 4, 4 / 3)))
    operations = np.floor(rest[:, 1] * len(OPERATIONS)).astype(int) if a.trivial_augment else np.zeros(len(rest), int)
    levels = np.floor(rest[:, 2] * 31) / 30 * np.where(SIGNED[operations] & (rest[:, 3] < 0.5), -1, 1)
    view = np.full_like(sizes, a.image_size)
    erased, found = draw_boxes(erasing, view, (0.02, 0.33), (0.3, 3.3), margin=1)
    erased[~found | (rest[:, 0] >= a.erasing), 2] = 0
    return Views(boxes, rest[:, 7] < a.flip, operations, levels, 1 + a.color_jitter * (2 * rest[:, 4:7] - 1), erased)


def draw_boxes(numbers, sizes, scale, ratio, margin=0):
    """Return (boxes (B, 4), found (B,)): of TRIES boxes the first that fits into the sizes (B, 2), height and width.

    The share of the area is uniform in `scale`, the aspect ratio log-uniform in `ratio`; a box that fits is smaller
    by `margin` pixels at least.
    """
    shares, ratios, place = np.split(numbers, [TRIES, 2 * TRIES], axis=1)
    areas = sizes.prod(1, keepdims=True) * (scale[0] + shares * (scale[1] - scale[0]))
    ratios = np.exp(math.log(ratio[0]) + ratios * math.log(ratio[1] / ratio[0]))
    extents = np.rint(np.sqrt(np.stack([areas / ratios, areas * ratios], axis=2))).astype(int)  # (B, TRIES, 2)
    fits = ((extents > 0) & (extents <= sizes[:, None] - margin)).all(2)
    extents = extents[np.arange(len(sizes)), fits.argmax(1)]
    corners = np.floor(place * (sizes - extents + 1)).astype(int)
    return np.concatenate([corners, extents], axis=1), fits.any(1)


def central_boxes(sizes, ratio):
    """Return the central boxes (B, 4) that keep as much of the sizes (B, 2) as a width / height in `ratio` allows."""
    height, width = sizes.T
    extents = np.stack([np.minimum(height, np.rint(width / ratio[0])),
                        np.minimum(width, np.rint(height * ratio[1]))], axis=1)
    return np.concatenate([(sizes - extents) // 2, extents], axis=1).astype(int)


# ---- cutting ----

def crop_frames(frames, views, image_size):
    """Return uint8 (B, 3, image_size, image_size): the boxes of frames, uint8 (H, W, 3), resized and flipped.

    Resizing is bilinear, smoothed where it makes smaller, on the uint8 pixels themselves.
    """
    images = torch.empty(len(frames), 3, image_size, image_size, dtype=torch.uint8)
    for image, frame, (top, left, height, width), flipped in zip(images, frames, views.boxes.tolist(), views.flipped,
                                                                 strict=True):
        box = torch.from_numpy(frame[top:top + height, left:left + width]).permute(2, 0, 1)
        box = interpolate(box[None], (image_size, image_size), mode="bilinear", antialias=True)[0]
        image.copy_(box.flip(2) if flipped else box)
    return images


def send(array, device):
    """Return a numpy array as a tensor on the device, without waiting for what the device still has to do."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


# ---- changing: images are uint8 (B, 3, H, W), what belongs to one of them is (B,) ----

def change(images, views, a):
    """Return the cut images after TrivialAugment, colour jitter and erasing, as far as the settings have them.

    On a CPU the result is the same to the bit for any number of threads: sums are sums of whole numbers.
    """
    if a.trivial_augment:
        order, parts = np.argsort(views.operations, kind="stable"), []
        for operation in np.unique(views.operations):
            places = np.flatnonzero(views.operations == operation)
            function, strongest = OPERATIONS[NAMES[operation]][:2]
            chosen = images.index_select(0, send(places, images.device))
            levels = send((views.levels[places] * strongest).astype(np.float32), images.device)
            parts.append(chosen if function is None else function(chosen, levels))
        images = torch.cat(parts).index_select(0, send(np.argsort(order), images.device))
    if a.color_jitter:
        factors = send(views.jitter.astype(np.float32), images.device)
        stretch = 4 if images.device.type == "cpu" else len(images)  # what stays in a processor's cache
        for part, own in zip(images.split(stretch), factors.split(stretch), strict=True):
            part.copy_(recolour(part, *own.T))
    if a.erasing:
        fill = send(np.array(a.fill, np.uint8), images.device)[:, None, None]
        for place in np.flatnonzero(views.erased[:, 2]):
            top, left, height, width = views.erased[place].tolist()
            images[place, :, top:top + height, left:left + width] = fill
    return images


def recolour(images, brightness, contrast, saturation):
    """Return images with brightness, then contrast, then saturation multiplied by factors >= 0, rounded once.

    All three are one affine map of a pixel's colour, given the mean grey of the picture.
    """
    def each(values):
        return values.view(-1, 1, 1, 1)
    sums = images.sum((2, 3), dtype=torch.int64).float()  # exact below 2^24, and far from where rounding shows above
    grey = (sums[:, 0] * LUMA[0] + sums[:, 1] * LUMA[1] + sums[:, 2] * LUMA[2]) / images[0, 0].numel()
    pixels = images.float()
    red, green, blue = pixels.unbind(1)
    own_grey = (red * LUMA[0]).add_(green * LUMA[1]).add_(blue * LUMA[2]).unsqueeze_(1)
    shift = own_grey.mul_(each(brightness * contrast * (1 - saturation))).add_(each(brightness * (1 - contrast) * grey))
    return pixels.mul_(each(brightness * contrast * saturation)).add_(shift).round_().clamp_(0, 255).to(torch.uint8)


def sharpen(images, factor):
    """Return images blended with their smoothed selves: factor 0 is smoothed, 1 the image, 2 sharper; edges stay."""
    inner = images[:, :, 1:-1, 1:-1]
    pixels = images.to(torch.int16)
    columns = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    sums = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:] + 4 * pixels[:, :, 1:-1, 1:-1]
    smooth, factor = (sums.float() / 13).round_(), factor.view(-1, 1, 1, 1)
    changed = images.clone()
    changed[:, :, 1:-1, 1:-1] = (inner * factor + smooth * (1 - factor)).clamp_(0, 255).to(torch.uint8)
    return changed


def warp(images, rows):
    """Return images drawn anew, black where nothing was: pixel (x, y) from the centre shows what was at rows (x, y, 1).

    `rows` are two lists of three: numbers, or float (B,).
    """
    height, width = images.shape[2:]
    y = (torch.arange(height, device=images.device) + 0.5 - height / 2).view(1, -1, 1)
    x = (torch.arange(width, device=images.device) + 0.5 - width / 2).view(1, 1, -1)
    across, along, shift = ([value.view(-1, 1, 1) for value in values] for values in zip(*rows, strict=True))
    grid = [(across[i] * x + shift[i] + along[i] * y) * (2 / side) for i, side in enumerate((width, height))]
    warped = grid_sample(images.float(), torch.stack(grid, 3), align_corners=False)
    return warped.round_().to(torch.uint8)


def each_like(level, *numbers):
    """Return the numbers as tensors like `level`."""
    return [torch.full_like(level, number) for number in numbers]


def shear_x(images, level):
    """Return images sheared along x, their top edge staying in place."""
    zero, one = each_like(level, 0, 1)
    return warp(images, [(one, level, level * images.shape[2] / 2), (zero, one, zero)])


def shear_y(images, level):
    """Return images sheared along y, their left edge staying in place."""
    zero, one = each_like(level, 0, 1)
    return warp(images, [(one, zero, zero), (level, one, level * images.shape[3] / 2)])


def move(images, right, down):
    """Return images moved by whole pixels (B,)."""
    zero, one = each_like(right, 0, 1)
    return warp(images, [(one, zero, -right.trunc()), (zero, one, -down.trunc())])


def rotate(images, degrees):
    """Return images turned about their centre, counter-clockwise."""
    angles, zero = torch.deg2rad(degrees), torch.zeros_like(degrees)
    cos, sin = torch.cos(angles), torch.sin(angles)
    return warp(images, [(cos, -sin, zero), (sin, cos, zero)])


def posterize(images, level):
    """Return images of 8 bits less round(level)."""
    return images & (255 << level.round().to(torch.uint8).view(-1, 1, 1, 1))


def solarize(images, level):
    """Return images inverted where they are as bright as 255 - level."""
    return torch.where(images >= (255 - level).view(-1, 1, 1, 1), ~images, images)


# TrivialAugmentWide (Mueller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", 2021;
# the table is torchvision's): function of (images, level (B,)), strongest level, whether the level may be negative.
OPERATIONS = {
    "Identity": (None, 0, False),
    "ShearX": (shear_x, 0.99, True),
    "ShearY": (shear_y, 0.99, True),
    "TranslateX": (lambda images, level: move(images, level, torch.zeros_like(level)), 32.0, True),
    "TranslateY": (lambda images, level: move(images, torch.zeros_like(level), level), 32.0, True),
    "Rotate": (rotate, 135.0, True),
    "Brightness": (lambda images, level: recolour(images, 1 + level, *each_like(level, 1, 1)), 0.99, True),
    "Color": (lambda images, level: recolour(images, *each_like(level, 1, 1), 1 + level), 0.99, True),
    "Contrast": (lambda images, level: recolour(images, *each_like(level, 1), 1 + level, *each_like(level, 1)), 0.99,
                 True),
    "Sharpness": (lambda images, level: sharpen(images, 1 + level), 0.99, True),
    "Posterize": (posterize, 6, False),
    "Solarize": (solarize, 255.0, False),
    "AutoContrast": (lambda images, level: F.autocontrast(images), 0, False),
    "Equalize": (lambda images, level: F.equalize(images), 0, False),
}
NAMES, SIGNED = list(OPERATIONS), np.array([signed for _, _, signed in OPERATIONS.values()])

"""Training views: a random crop and flip, then torchvision's colour and shape operations.

A view depends on (seed, epoch, draw) only, where `draw` is its position in the epoch's order. So it
is the same for any number of workers and ranks, in any batch, and after a resume.
"""
import math
import random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.transforms import v2

from training.runs import stream_seed

CROP_ASPECT_RATIOS = (3 / 4, 4 / 3)  # width / height, as in torchvision's RandomResizedCrop
CROP_ATTEMPTS = 10  # to find a box that fits, as there


class Augmentation(NamedTuple):
    """Settings of the training views, and torchvision's transforms."""

    image_size: int
    crop_scale_min: float
    flip: float
    operations: list  # applied in order to a PIL image


def build_augmentation(s):
    """Return the `Augmentation` of the settings."""
    operations = []
    if s.trivial_augment:
        operations.append(v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR))
    if s.color_jitter:
        operations.append(v2.ColorJitter(s.color_jitter, s.color_jitter, s.color_jitter))
    if s.erasing:  # filled with the mean colour, which normalisation maps to about 0
        mean_color = tuple(round(255 * mean) for mean in s.mean)
        operations.append(v2.RandomErasing(s.erasing, value=mean_color))
    return Augmentation(s.train_size, s.crop_scale_min, s.flip, operations)


def augment(image, a, seed, epoch, draw):
    """Return a training view, uint8 (image_size, image_size, 3), of an image, uint8 (H, W, 3).

    Python's generator draws crop and flip because seeding it takes 10 microseconds, numpy's 32.
    """
    view_seed = stream_seed(seed, "augmentation", epoch, draw)
    rng = random.Random(view_seed)
    box = draw_box(*image.shape[:2], a.crop_scale_min, rng)
    flipped = rng.random() < a.flip
    view = crop(image, box, flipped, a.image_size)
    if not a.operations:
        return view
    # On PIL images, which are as fast. On tensors, torch splits sums (such as the mean grey that
    # contrast needs) among threads, so views would differ between main process and workers.
    picture = Image.fromarray(view.numpy())
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(view_seed)  # torch.manual_seed also reseeds GPUs
        for operation in a.operations:
            picture = operation(picture)
    return torch.from_numpy(np.array(picture))


def draw_box(height, width, scale_min, rng):
    """Return (top, left, height, width) of a random crop, as RandomResizedCrop draws it.

    The share of the area is uniform in [scale_min, 1], the aspect ratio log-uniform in
    CROP_ASPECT_RATIOS. If no attempt fits, the box is the largest central one within these ratios.
    """
    narrowest, widest = CROP_ASPECT_RATIOS
    for _ in range(CROP_ATTEMPTS):
        area = height * width * rng.uniform(scale_min, 1)
        ratio = math.exp(rng.uniform(math.log(narrowest), math.log(widest)))
        box_height, box_width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = rng.randint(0, height - box_height), rng.randint(0, width - box_width)
            return top, left, box_height, box_width
    box_height = min(height, round(width / narrowest))
    box_width = min(width, round(height * widest))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def crop(image, box, flipped, image_size):
    """Return the box of an image, resized and perhaps flipped: uint8 (image_size, image_size, 3).

    Resizing is bilinear with antialiasing, on uint8 pixels, in channels-last layout, which takes
    half the time.
    """
    top, left, height, width = box
    pixels = torch.from_numpy(image[top:top + height, left:left + width])
    view = interpolate(pixels[None].permute(0, 3, 1, 2), (image_size, image_size),
                       mode="bilinear", antialias=True)
    view = view.flip(3) if flipped else view
    return view.permute(0, 2, 3, 1)[0].contiguous()

"""Training views: their distributions and operations beside torchvision's, and the same views from both back-ends."""
import math

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

import config
import dataset
from tests.conftest import draw
from training.augmentation import NAMES, OPERATIONS, build_augmentation, change, draw_numbers, draw_views, recolour


def drawn(count, sizes, **settings):
    """Return the `Views` of so many draws of frames of sizes (height, width)."""
    a = build_augmentation(config.namespace(**settings))
    return draw_views(draw_numbers(7, 1, range(count)), np.resize(sizes, (count, 2)), a)


@pytest.fixture
def images():
    """Return uint8 (8, 3, 56, 64): smooth pictures, one of them with little contrast."""
    pictures = np.stack([np.array(draw(seed, (64, 56), 5)) for seed in range(8)])
    pictures[3] = pictures[3] // 4 + 90
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous()


# ---- drawing ----

def test_views_depend_on_seed_epoch_and_draw_alone():
    draws = [5, 0, 1023, 1024, 4000]
    together = draw_numbers(3, 2, draws)
    assert np.array_equal(together, np.concatenate([draw_numbers(3, 2, [draw]) for draw in draws]))
    assert len({row.tobytes() for numbers in (together, draw_numbers(3, 1, draws), draw_numbers(4, 2, draws))
                for row in numbers}) == 15


def test_boxes_are_those_of_random_resized_crop():
    count, picture = 3000, torch.empty(3, 256, 341)
    views = drawn(count, (256, 341), crop_scale_min=0.08)
    top, left, height, width = views.boxes.T
    assert (views.boxes >= 0).all() and (top + height <= 256).all() and (left + width <= 341).all()
    torch.manual_seed(0)
    theirs = np.array([[params[key] for key in ("top", "left", "height", "width")] for params in
                       (v2.RandomResizedCrop(224).make_params([picture]) for _ in range(count))])
    for ours, other in zip(statistics(views.boxes), statistics(theirs), strict=True):
        assert np.allclose(ours, other, atol=0.03)
    assert abs(views.flipped.mean() - 0.5) < 0.03


def statistics(boxes):
    """Return quantiles of area, log of width / height, and place of the centre of boxes in 256 x 341 pixels."""
    top, left, height, width = boxes.T.astype(float)
    for values in (height * width / 256 / 341, np.log(width / height), (top + height / 2) / 256,
                   (left + width / 2) / 341):
        yield np.quantile(values, (0.1, 0.3, 0.5, 0.7, 0.9))


def test_a_picture_too_long_for_any_box_gives_its_middle():
    assert drawn(3, (20, 400), crop_scale_min=0.9).boxes.tolist() == [[0, 186, 20, 27]] * 3
    assert drawn(3, (400, 20), crop_scale_min=0.9).boxes.tolist() == [[186, 0, 27, 20]] * 3


def test_erasing_is_that_of_random_erasing():
    count, picture = 4000, torch.zeros(3, 64, 64)
    erased = drawn(count, (80, 80), image_size=64, erasing=0.25).erased
    chosen = erased[erased[:, 2] > 0].astype(float)
    assert abs(len(chosen) / count - 0.25) < 0.03
    torch.manual_seed(0)
    theirs = np.array([[params[key] for key in ("h", "w")] for params in
                       (v2.RandomErasing(1.0).make_params([picture]) for _ in range(2000))], float)
    for ours, other in ((chosen[:, 2] * chosen[:, 3], theirs.prod(1)),
                        (np.log(chosen[:, 3] / chosen[:, 2]), np.log(theirs[:, 1] / theirs[:, 0]))):
        assert np.allclose(np.quantile(ours, (0.2, 0.5, 0.8)), np.quantile(other, (0.2, 0.5, 0.8)), rtol=0.1, atol=0.1)
    assert not drawn(100, (80, 80)).erased[:, 2].any()
    assert not drawn(100, (80, 80)).operations.any()
    assert set(drawn(1000, (80, 80), trivial_augment=True).operations) == set(range(14))


# ---- changing ----

def affine(image, angle=0.0, translate=(0, 0), shear=(0.0, 0.0), center=None):
    return F.affine(image, angle, list(translate), 1.0, list(shear), InterpolationMode.BILINEAR, center=center)


def slope(level):
    return math.degrees(math.atan(level))


THEIRS = {  # as torchvision's TrivialAugmentWide calls them
    "Identity": lambda image, level: image,
    "ShearX": lambda image, level: affine(image, shear=(slope(level), 0.0), center=[0, 0]),
    "ShearY": lambda image, level: affine(image, shear=(0.0, slope(level)), center=[0, 0]),
    "TranslateX": lambda image, level: affine(image, translate=(int(level), 0)),
    "TranslateY": lambda image, level: affine(image, translate=(0, int(level))),
    "Rotate": lambda image, level: F.rotate(image, level, InterpolationMode.BILINEAR),
    "Brightness": lambda image, level: F.adjust_brightness(image, 1 + level),
    "Color": lambda image, level: F.adjust_saturation(image, 1 + level),
    "Contrast": lambda image, level: F.adjust_contrast(image, 1 + level),
    "Sharpness": lambda image, level: F.adjust_sharpness(image, 1 + level),
    "Posterize": lambda image, level: F.posterize(image, 8 - round(level)),
    "Solarize": lambda image, level: F.solarize(image, 255 - level),
    "AutoContrast": lambda image, level: F.autocontrast(image),
    "Equalize": lambda image, level: F.equalize(image),
}


@pytest.mark.parametrize("name", NAMES)
def test_operations_are_torchvisions(images, name):
    """Within 2 of 255 but for one pixel in a hundred, at the edges of what is moved."""
    function, strongest, signed = OPERATIONS[name]
    levels = torch.tensor([0, 0.1, 0.3, 0.4, 0.5, 0.7, 0.9, 1]) * strongest
    if signed:
        levels[::2] *= -1
    ours = images if function is None else function(images, levels)
    assert (ours.dtype, ours.shape) == (torch.uint8, images.shape)
    for mine, image, level in zip(ours, images, levels.tolist(), strict=True):
        off = (mine.int() - THEIRS[name](image, level).int()).abs()
        assert (off > 2).float().mean() < 0.01, (name, level)


def test_recolouring_is_brightness_then_contrast_then_saturation(images):
    pale = images // 2 + 60  # nothing is clipped on the way
    factors = torch.tensor([[1.1, 0.8, 1.2]] * 8)
    for mine, image in zip(recolour(pale, *factors.T), pale, strict=True):
        theirs = F.adjust_saturation(F.adjust_contrast(F.adjust_brightness(image, 1.1), 0.8), 1.2)
        assert (mine.int() - theirs.int()).abs().max() <= 3


def test_changing_a_batch_is_changing_each_of_it(images):
    a = build_augmentation(config.namespace(image_size=64, trivial_augment=True, color_jitter=0.4, erasing=0.6))
    images = torch.nn.functional.pad(images, (0, 0, 0, 8))
    views = draw_views(draw_numbers(1, 1, range(8)), np.full((8, 2), 64), a)
    together = change(images.clone(), views, a)
    for place in range(8):
        own = type(views)(*(values[place:place + 1] for values in views))
        assert torch.equal(change(images[place:place + 1].clone(), own, a)[0], together[place])
    top, left, height, width = views.erased[views.erased[:, 2] > 0][0]
    hole = together[np.flatnonzero(views.erased[:, 2])[0], :, top:top + height, left:left + width]
    assert (hole == torch.tensor([124, 116, 104])[:, None, None]).all(), "the mean colour"


@pytest.mark.gpu
def test_normalising_is_the_same_on_a_gpu(images):
    ours, other = (dataset.normalize(images.to(device), config.MEAN, config.STD) for device in ("cpu", "cuda"))
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(ours, other.cpu(), atol=1e-5)

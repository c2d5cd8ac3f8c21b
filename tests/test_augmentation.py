"""Training views: torchvision's distributions and operations, and one seed per view."""
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

import config
from dataset import normalize
from images import IMAGENET_MEAN, IMAGENET_STD
from model import complete
from tests.conftest import draw
from training.augmentation import augment, build_augmentation, crop, draw_box
from training.runs import stream_seed

EVERYTHING = {"trivial_augment": True, "color_jitter": 0.4, "erasing": 0.5}


def build(**settings):
    return build_augmentation(complete(config.namespace(**{"image_size": 64, **settings})))


def draw_boxes(count, height, width, scale_min):
    """Return `count` boxes, one per seed: (count, 4) of top, left, height, width."""
    return np.array([draw_box(height, width, scale_min, random.Random(seed))
                     for seed in range(count)])


@pytest.fixture
def image():
    """Return a resized image, uint8 (80, 100, 3)."""
    return np.array(draw(1, (100, 80), 5))


# ---- crop and flip ----

def test_boxes_are_those_of_random_resized_crop():
    count, picture = 3000, torch.empty(3, 256, 341)
    boxes = draw_boxes(count, 256, 341, 0.08)
    top, left, height, width = boxes.T
    assert (boxes >= 0).all() and (top + height <= 256).all() and (left + width <= 341).all()
    transform = v2.RandomResizedCrop(224)
    torch.manual_seed(0)
    theirs = np.array([[params[key] for key in ("top", "left", "height", "width")] for params in
                       (transform.make_params([picture]) for _ in range(count))])
    for ours, other in zip(quantiles(boxes), quantiles(theirs), strict=True):
        assert np.allclose(ours, other, atol=0.03)


def quantiles(boxes):
    """Return quantiles of area, log of width / height, and centre of boxes in 256 x 341 pixels."""
    top, left, height, width = boxes.T.astype(float)
    for values in (height * width / 256 / 341, np.log(width / height), (top + height / 2) / 256,
                   (left + width / 2) / 341):
        yield np.quantile(values, (0.1, 0.3, 0.5, 0.7, 0.9))


def test_the_smallest_crop_is_that_of_the_setting():
    areas = draw_boxes(2000, 256, 256, 0.35)[:, 2:].prod(1) / 256**2
    assert 0.34 < areas.min() < 0.37
    assert 0.95 < areas.max() <= 1


def test_an_image_too_long_for_any_box_gives_its_centre():
    assert draw_boxes(3, 20, 400, 0.9).tolist() == [[0, 186, 20, 27]] * 3
    assert draw_boxes(3, 400, 20, 0.9).tolist() == [[186, 0, 27, 20]] * 3


@pytest.mark.parametrize("probability", [0, 0.2, 0.5, 1])
def test_views_are_flipped_with_the_probability_of_the_setting(probability):
    """The left half of the image is the darker one; in a flipped view it is the brighter one."""
    image = np.repeat(np.linspace(0, 255, 80, dtype=np.uint8), 3).reshape(1, 80, 3).repeat(64, 0)
    a = build(flip=probability, crop_scale_min=0.5)
    views = torch.stack([augment(image, a, 0, 1, draw) for draw in range(1500)]).float()
    flipped = views[:, :, :32].mean((1, 2, 3)) > views[:, :, 32:].mean((1, 2, 3))
    assert abs(flipped.float().mean() - probability) < (0.04 if 0 < probability < 1 else 1e-6)


@pytest.mark.parametrize("settings, side", [
    ({"image_size": 0}, 192), ({"image_size": 160}, 128), ({"image_size": 128}, 128),
    ({"image_size": 0, "train_size": 96}, 96), ({"image_size": 0, "initial_weights": "none"}, 224)])
def test_training_views_are_smaller_than_evaluations(image, settings, side):
    assert augment(image, build(**settings), seed=0, epoch=1, draw=0).shape == (side, side, 3)


@pytest.mark.parametrize("image_size", [32, 64, 150])
@pytest.mark.parametrize("flipped", [False, True])
def test_crops_equal_torchvisions_resized_crop(image, image_size, flipped):
    """This holds for crops that are reduced and for crops that are enlarged."""
    wanted = v2.functional.resized_crop(torch.from_numpy(image).permute(2, 0, 1), 5, 8, 60, 90,
                                        [image_size, image_size], antialias=True)
    wanted = wanted.flip(2) if flipped else wanted
    view = crop(image, (5, 8, 60, 90), flipped, image_size)
    assert view.shape == (image_size, image_size, 3)
    assert view.is_contiguous()
    assert (view.permute(2, 0, 1).int() - wanted.int()).abs().max() <= 1


# ---- seeds ----

@pytest.mark.parametrize("settings", [{}, EVERYTHING])
def test_a_view_is_a_function_of_seed_epoch_and_draw(image, settings):
    a = build(**settings)
    view = augment(image, a, 3, 2, 5)
    torch.manual_seed(1)  # neither the global generators nor other views change it
    random.seed(1)
    np.random.seed(1)
    augment(image, a, 3, 2, 6)
    assert torch.equal(augment(image, a, 3, 2, 5), view)
    others = [augment(image, a, *key) for key in ((4, 2, 5), (3, 1, 5), (3, 2, 6))]
    assert len({other.numpy().tobytes() for other in (view, *others)}) == 4


def test_generators_of_the_process_stay_as_they_were(image):
    a = build(**EVERYTHING)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    augment(image, a, 3, 2, 5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


@pytest.mark.gpu
def test_generators_of_gpus_stay_as_they_were(image):
    torch.cuda.manual_seed(7)
    before = torch.cuda.get_rng_state()
    augment(image, build(**EVERYTHING), 3, 2, 5)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def test_training_views_do_not_depend_on_the_number_of_threads():
    """Workers have one thread, the main process more; sums over threads would round differently."""
    image = np.array(draw(2, (300, 256), 40))
    a = build_augmentation(complete(config.namespace(image_size=224, **EVERYTHING)))
    views, threads = {}, torch.get_num_threads()
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            views[count] = torch.stack([augment(image, a, 0, 1, draw) for draw in range(40)])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(views[1], views[4])


# ---- torchvision's operations ----

@pytest.mark.parametrize("name, value, transform", [
    ("trivial_augment", True, v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)),
    ("color_jitter", 0.3, v2.ColorJitter(0.3, 0.3, 0.3)),
    ("erasing", 0.5, v2.RandomErasing(0.5, value=(124, 116, 104)))])
def test_augmentations_equal_torchvisions_under_the_seed_of_the_view(image, name, value, transform):
    """They are applied to the crop, under the seed of the view."""
    changed, a, cropped = 0, build(**{name: value}), build()
    for position in range(20):
        crop_alone = augment(image, cropped, 0, 1, position)
        torch.manual_seed(stream_seed(0, "augmentation", 1, position))
        wanted = torch.from_numpy(np.array(transform(Image.fromarray(crop_alone.numpy()))))
        assert torch.equal(augment(image, a, 0, 1, position), wanted)
        changed += not torch.equal(wanted, crop_alone)
    assert changed >= 4


def test_erasing_has_the_probability_of_the_setting_and_the_mean_colour(image):
    a, crop_alone = build(erasing=0.25), build()
    changed = [(augment(image, a, 0, 1, draw) != augment(image, crop_alone, 0, 1, draw)).any(2)
               for draw in range(1500)]
    erased = [draw for draw, where in enumerate(changed) if where.any()]
    assert abs(len(erased) / len(changed) - 0.25) < 0.04
    view = augment(image, a, 0, 1, erased[0])
    assert (view[changed[erased[0]]] == torch.tensor([124, 116, 104], dtype=torch.uint8)).all()


# ---- normalising ----

@pytest.mark.gpu
def test_normalisation_is_the_same_on_a_gpu(image):
    images = torch.from_numpy(np.stack([image] * 3)).permute(0, 3, 1, 2)
    ours, other = (normalize(images.to(device), IMAGENET_MEAN, IMAGENET_STD)
                   for device in ("cpu", "cuda"))
    assert other.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(ours, other.cpu(), atol=1e-5)

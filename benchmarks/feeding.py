"""How many training images does one core make per second, beside torchvision and timm?

    python benchmarks/feeding.py --photos DIR
    figure crop_and_flip_over_torchvision 4.88 times target >= 3 met

All sides read the same JPEGs of 256 pixels on the shorter side, in batches of 32 without worker
processes, and make normalised float32 (32, 3, 224, 224). "ours" reads the files or the cache.
"torchvision" is `ImageFolder` with the preset of its references/classification, on PIL images (its
default) and, without a target, on tensors with version 2. "timm" is its `create_transform`, which
lacks TrivialAugment and gets RandAugment of one operation of any strength instead. `decode_jpeg` is
torchvision's decoder alone, from memory. Rates are images per second of CPU time: the median and
quartiles of the rounds; ratios are those of the medians.
"""
import statistics
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms as T
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import config
from benchmarks.common import parse, state, take_turns
from dataset import batches, build_train_loader
from images import IMAGENET_MEAN, IMAGENET_STD, View
from model import complete
from training.image_cache import build_cache, read_resized

BATCH = 32
KINDS = {"crop and flip": False, "with TrivialAugment": True}


def main(argv=None):
    flags = parse(__doc__, argv, rounds=7, count=320)
    torch.set_num_threads(1)
    folder, rates = write_photos(flags.photos, flags.work / "feeding", flags.count), {}
    data = [torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
            for path in sorted(folder.rglob("*.jpg"))]
    for kind, trivial_augment in KINDS.items():
        ways = {"decode_jpeg": lambda: [decode_jpeg(jpeg, ImageReadMode.RGB) for jpeg in data],
                **build_ways(folder, flags.work / "feeding/cache", trivial_augment)}
        seconds = take_turns(ways, flags.rounds, time.process_time)
        rates[kind] = {way: [flags.count / value for value in values]
                       for way, values in seconds.items()}
    print(f"{'photographs / s of one core':28}" + "".join(f"{kind:>32}" for kind in KINDS))
    for way in ways:
        print(f"{way:28}" + "".join("{1:14,.0f} ({0:,.0f} to {2:,.0f})".format(
            *statistics.quantiles(rates[kind][way], n=4)).rjust(32) for kind in KINDS))
    rates = {kind: {way: statistics.median(values) for way, values in ways.items()}
             for kind, ways in rates.items()}
    figures = []
    for kind, target in zip(KINDS, (3, 1.4), strict=True):
        figures += [(f"{kind}_over_{peer}".replace(" ", "_"),
                     rates[kind]["ours, cache"] / rates[kind][peer], "times", ">=", target)
                    for peer in ("torchvision", "timm")]
    plain = rates["crop and flip"]
    return state([*figures, ("crop_and_flip_over_decode_jpeg",
                             plain["ours, cache"] / plain["decode_jpeg"], "times", ">=", 0.5)])


def write_photos(photos, folder, count):
    """Resize `count` photographs as cleaning does, a folder per class; return their folder."""
    target = folder / f"photos{count}"
    for path in sorted(photos.rglob("*.jpg"))[:count]:
        to = target / path.parent.name / path.name
        if not to.exists():
            to.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(read_resized(path, View(), 80)).save(to, quality=config.JPEG_QUALITY)
    written = len(list(target.rglob("*.jpg")))
    if written < count:
        raise SystemExit(f"{photos} has {written} JPEGs; give --count {written} or less")
    return target


def list_photos(folder):
    """Return the label table of a folder with one folder per class."""
    names = sorted(path.name for path in folder.iterdir())
    return pd.DataFrame([(str(path), names.index(path.parent.name))
                         for path in sorted(folder.rglob("*.jpg"))], columns=["path", "label"])


def build_ways(folder, cache_dir, trivial_augment):
    """Return {name: function that makes the batches of all photographs once}."""
    table = list_photos(folder)
    s = complete(config.namespace(  # crops as in the peers' presets
        batch_size=BATCH, num_workers=0, trivial_augment=trivial_augment, cache_dir=cache_dir,
        crop_scale_min=0.08))
    ours = {"ours, files": build_train_loader(table, s),
            "ours, cache": build_train_loader(table, s, build_cache(table, s))}
    transforms = {"torchvision": torchvision_preset(trivial_augment),
                  "torchvision v2, tensors": torchvision_v2_preset(trivial_augment),
                  "timm": timm_transform(trivial_augment)}
    peers = {name: DataLoader(ImageFolder(folder, transform), BATCH, shuffle=True)
             for name, transform in transforms.items()}
    device = torch.device("cpu")
    return {**{name: lambda loader=loader: exhaust(batches(loader, device, s.mean, s.std))
               for name, loader in ours.items()},
            **{name: lambda loader=loader: exhaust(loader) for name, loader in peers.items()}}


def exhaust(loader):
    """Iterate over all batches and check their images: float32 (32, 3, 224, 224)."""
    for images, _ in loader:
        assert images.shape == (BATCH, 3, 224, 224) and images.dtype == torch.float32


def torchvision_preset(trivial_augment):
    """Return ClassificationPresetTrain of torchvision's references: PIL -> float (3, 224, 224)."""
    trivial = T.TrivialAugmentWide(interpolation=T.InterpolationMode.BILINEAR)
    return T.Compose([T.RandomResizedCrop(224), T.RandomHorizontalFlip(),
                      *([trivial] if trivial_augment else []), T.PILToTensor(),
                      T.ConvertImageDtype(torch.float32), T.Normalize(IMAGENET_MEAN, IMAGENET_STD)])


def torchvision_v2_preset(trivial_augment):
    """Return the same with --use-v2 --backend tensor, which is faster but not the default."""
    trivial = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
    return v2.Compose([v2.PILToTensor(), v2.RandomResizedCrop(224), v2.RandomHorizontalFlip(),
                       *([trivial] if trivial_augment else []),
                       v2.ToDtype(torch.float32, scale=True),
                       v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)])


def timm_transform(trivial_augment):
    """Return timm's training transform with the same operations: PIL -> float (3, 224, 224)."""
    from timm.data import create_transform
    policy = "rand-m10-n1-p1.0-mstd101-inc1" if trivial_augment else None
    return create_transform(224, is_training=True, color_jitter=None, interpolation="bilinear",
                            mean=IMAGENET_MEAN, std=IMAGENET_STD, auto_augment=policy)


if __name__ == "__main__":
    sys.exit(main())

"""A trained network ready to predict, from a checkpoint or (without torch) an ONNX file.

`ONNX_METADATA` documents the metadata of an ONNX file. `evaluation.facts` checks everything that is
read.
"""
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from config import ROOT
from evaluation.facts import CREDIT, TEXTS, require_facts, warn_of_fallbacks
from images import View
from names import class_of_folder, genus_of
from utils import InputError, PlantClass, read_classes, require_file, warn

# Format 5 adds `temperature_by_score` to `answers`. Format 4 adds `crop` and `interpolation`.
# Format 3 has whole classes, limits and measurements. Format 2 had [Latin, Russian, English] as
# `classes`. Format 1 had no `format` and other names.
ONNX_FORMAT = 5
ONNX_METADATA = {
    "format": "version of this table",
    "classes": "per class, in label order: the columns of the class table, and the small picture "
               "(JPEG in base64) with author, license and url",
    "image_size": "pixels, side of the square view",
    "crop": "side of the view / shorter side of the resized photograph",
    "interpolation": "of the resizing, Pillow's name",
    "temperature": "divides the logits before the softmax, times a factor that depends on the "
                   "score, see `answers`",
    "flip_tta": "whether outputs are to be averaged over a view and its mirror image",
    "out_of_distribution_threshold": "of the score, the last output; null if there is none",
    "answers": "temperatures and limits of confidence, see evaluation/answers.py; null if there "
               "are none",
    "unknown": "measurements on plants left out of training; null if there are none"}
RENAMED = {"mirrored_view": "flip_tta", "threshold": "out_of_distribution_threshold"}  # format 1: 2
LATER = {"answers": None, "unknown": None,  # keys missing in earlier formats
         "crop": View.crop, "interpolation": View.interpolation}
DEFAULT_TABLE = ROOT / "data/crimean_plants.csv"
REMEDY = "the file is damaged, or not of this project; export or download it again"


class Predictor(NamedTuple):
    """A trained network and everything that prediction needs."""

    path: Path
    classes: list  # of `PlantClass`, in label order
    view: View
    temperature: float
    ood_threshold: float | None  # of the score, None if the file has none
    flip_tta: bool  # whether it was calibrated with flip test-time augmentation
    outputs: Callable  # views, uint8 (B, H, W, 3) -> float32 (B, K + 1): logits, then the score
    network: Any = None  # the torch module behind `outputs` (`PixelModel`), None with ONNX
    answers: dict | None = None  # see evaluation/answers.py; None in older files
    unknown: dict | None = None  # what was measured on unknown plants; None in older files
    pictures: tuple = ()  # per class {"picture": base64 JPEG, author, license, url}, or {}


def load_predictor(s):
    """Return the `Predictor` of the settings, its outputs with flip TTA if it was calibrated so."""
    if s.onnx and s.checkpoint:
        warn(f"--checkpoint {s.checkpoint} is ignored, because --onnx {s.onnx} names the network")
    predictor = load_onnx(s.onnx, s) if s.onnx else load_pytorch(s)
    warn_of_age(predictor)
    if not predictor.flip_tta:
        return predictor
    single = predictor.outputs
    return predictor._replace(
        outputs=lambda views: (single(views) + single(views[:, :, ::-1])) / 2)


def warn_of_age(predictor):
    """Warn of what the file of an earlier version, or of a run that has not ended, lacks."""
    if predictor.ood_threshold is None:
        warn(f"{predictor.path} has no out-of-distribution threshold: photographs of anything get "
             "the name of a class")
    if predictor.answers is None:
        warn(f"{predictor.path} has no limits for the share of wrong names, as it is of an earlier "
             "version or its run has not ended: --max_risk is applied to each photograph, and "
             "there are no sets")


def load_onnx(path, s=None):
    """Return the `Predictor` of a file that export.py wrote, on the CPU and without flip TTA.

    With settings, their class table overrides names, see `name_classes`.
    """
    session, facts = open_onnx(path)
    if s:
        warn_of_fallbacks(s, facts, path)
        latin = [plant["latin"] for plant in facts["classes"]]
        facts["classes"] = name_classes(latin, facts["classes"], s)
    classes = [plant_of(label, plant) for label, plant in enumerate(facts["classes"])]

    def outputs(views):
        try:
            return session.run(None, {"views": np.ascontiguousarray(views)})[0]
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise InputError(f"{path}: the network in it cannot compute {len(views)} views "
                             f"({type(error).__name__}); {REMEDY}") from None
    require_rows(outputs, facts, path)
    return Predictor(
        Path(path), classes, View(*(facts[key] for key in View._fields)),
        facts["temperature"] or 1.0,
        facts["out_of_distribution_threshold"], facts["flip_tta"], outputs,
        answers=facts["answers"], unknown=facts["unknown"],
        pictures=tuple(map(picture_of, facts["classes"])))


def open_onnx(path):
    """Return (ONNX Runtime session, checked metadata) of a file that export.py wrote."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError("--onnx needs ONNX Runtime; run pip install onnxruntime") from None
    require_file(path, "name an ONNX file, which export.py writes")
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        stored = session.get_modelmeta().custom_metadata_map
        facts = {RENAMED.get(key, key): json.loads(text) for key, text in stored.items()}
        missing = set(ONNX_METADATA) - set(facts) - {"format", *LATER}
        if missing:
            raise ValueError(f"no {min(missing)}")
    except Exception as error:  # ONNX Runtime's errors have no common base class
        raise InputError(f"{path} is not an ONNX file of export.py ({type(error).__name__}); "
                         f"{REMEDY}") from None
    if not isinstance(facts.get("format", 1), int) or facts.get("format", 1) > ONNX_FORMAT:
        stated = str(facts["format"])[:20]
        raise InputError(f"{path} has format {stated!r}, this code reads formats up to "
                         f"{ONNX_FORMAT}; update the code")
    facts["classes"] = [dict(zip(PlantClass._fields[1:4], plant, strict=True))
                        if isinstance(plant, list) and len(plant) == 3 else plant
                        for plant in facts["classes"]] if isinstance(facts["classes"], list) else 0
    facts = {**LATER, **facts}
    require_facts(facts, path, REMEDY)
    require_shapes(session, facts, path)
    return session, facts


def require_shapes(session, facts, path):
    """Raise InputError if the graph's inputs and outputs do not fit the metadata."""
    size, count = facts["image_size"], len(facts["classes"])
    inputs, outputs = ([(one.type, isinstance(one.shape[0], int), *one.shape[1:])
                        for one in listed if one.shape]  # shape[0], the batch, must be variable
                       for listed in (session.get_inputs(), session.get_outputs()))
    if ([one.name for one in session.get_inputs()] != ["views"]
            or inputs != [("tensor(uint8)", False, size, size, 3)]
            or [(kind, *shape) for kind, _, *shape in outputs] != [("tensor(float)", count + 1)]):
        raise InputError(f"{path}: image_size {size} and {count} classes do not fit the network in "
                         f"it; {REMEDY}")


def require_rows(outputs, facts, path):
    """Raise InputError unless the network predicts each of several views as it does alone."""
    size, count = facts["image_size"], len(facts["classes"])
    views = np.zeros((2, size, size, 3), np.uint8)
    views[1] = np.random.default_rng(0).integers(0, 256, views[1].shape)
    rows, alone = outputs(views), outputs(views[:1])
    if not (rows.shape == (2, count + 1) and alone.shape == (1, count + 1)
            and np.allclose(rows[:1], alone, rtol=0.02, atol=0.05, equal_nan=True)):
        raise InputError(f"{path}: the network in it predicts two views otherwise than each of "
                         f"them; {REMEDY}")


def plant_of(label, stored):
    """Return the `PlantClass` of a stored class; by default the genus is the name's first word."""
    texts = {key: stored.get(key, "") for key in TEXTS}
    return PlantClass(label=label, **{**texts, "genus": texts["genus"]
                                      or genus_of(stored["latin"])})


def picture_of(stored):
    """Return the picture of a stored class and its credit, {} if it has none."""
    if not stored.get("picture"):
        return {}
    return {key: stored.get(key, "") for key in ("picture", *CREDIT)}


def load_pytorch(s):
    """Return the `Predictor` of a checkpoint, on the device of the settings, without flip TTA."""
    import torch

    from evaluation.out_of_distribution import add_score
    from evaluation.trained_model import PixelModel, restore_model
    from training.checkpoints import open_checkpoint
    from training.runs import pick_device
    path, checkpoint = open_checkpoint(s)
    print(f"checkpoint {path}", file=sys.stderr)
    stored = name_classes(checkpoint["class_names"], checkpoint["classes"], s)
    classes = [plant_of(label, plant) for label, plant in enumerate(stored)]
    device, entry = pick_device(s.device), checkpoint["out_of_distribution"]
    model = restore_model(checkpoint, path, [plant.latin for plant in classes])
    model = add_score(model, entry, path)
    network = PixelModel(model, checkpoint["mean"], checkpoint["std"]).to(device).eval()

    @torch.inference_mode()
    def outputs(views):
        return network(torch.from_numpy(np.ascontiguousarray(views)).to(device)).cpu().numpy()
    return Predictor(path, classes, View(*(checkpoint[key] for key in View._fields)),
                     checkpoint["temperature"] or 1.0,
                     entry and entry["threshold"], checkpoint["flip_tta"], outputs, network,
                     checkpoint["answers"], checkpoint["unknown"],
                     tuple(map(picture_of, stored)))


def name_classes(names, stored, s):
    """Return the classes of a network as dictionaries, normally those `stored` with it.

    A class table named in the settings overrides them, with a message, if it has all of the Latin
    names; where its cells are empty, stored texts such as cautions stay. Any other table is
    ignored. Older checkpoints contain only Latin names, or nothing: the class table adds the rest.
    """
    if names is None:
        return [plant._asdict() for plant in read_classes(s.class_table, s.limit_classes)]
    chosen = Path(s.class_table) != DEFAULT_TABLE
    table = read_classes(s.class_table) if (chosen or not stored) and Path(
        s.class_table).is_file() else []
    plants = [class_of_folder(latin, table) for latin in names]
    if stored and not all(plants):
        if chosen:
            print(f"{s.class_table} is for another flora and is ignored; the classes are those "
                  "stored with the network", file=sys.stderr)
        return stored
    stored = stored or [{}] * len(names)
    merged = [{**old, **filled(plant), "latin": latin}
              for old, plant, latin in zip(stored, plants, names, strict=True)]
    if any(old and {**new, **old} != new for old, new in zip(stored, merged, strict=True)):
        print(f"names and notes are those of {s.class_table}, not those stored with the network",
              file=sys.stderr)
    return merged


def filled(plant):
    """Return the non-empty columns of a row of the class table, {} for None."""
    columns = {key: value for key, value in plant._asdict().items() if value} if plant else {}
    if columns.get("genus") == genus_of(columns.get("latin", "")):
        del columns["genus"]  # the default of `plant_of`, which must not replace a stored genus
    return columns

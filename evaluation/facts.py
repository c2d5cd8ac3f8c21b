"""Checks of the facts stored with a network, in a checkpoint or an ONNX file.

`FACTS` is the table: the check of a fact returns None or what was expected. Files may come from
strangers, and NaN or a number out of range would turn into a confident wrong answer.
"""
import base64
import re

import numpy as np

from evaluation.answers import RANKS, RISKS
from evaluation.together import correlation_of
from utils import InputError, PlantClass, warn

TEXTS = PlantClass._fields[1:4] + PlantClass._fields[5:]  # of a class: all but label and synonyms
INTERPOLATIONS = ("lanczos", "bicubic", "bilinear", "nearest", "box", "hamming")  # Pillow's
CREDIT = ("author", "license", "url")  # columns of a label table that may be missing
LONGEST = 10_000  # characters of a text
SURROGATES = re.compile("[\ud800-\udfff]")  # halves of characters, which UTF-8 cannot encode
# Settings of networks whose file lacks them: the values that choose nothing.
FALLBACKS = {"image_size": 0, "mean": (), "std": (), "flip_tta": True}
MEASURED = {"named": "photographs", "others_named": "others"}  # share: of how many photographs


def require_facts(facts, path, remedy):
    """Raise InputError for the first of the facts {name: value} that fails its check in FACTS."""
    for name, value in facts.items():
        expected = FACTS[name](value) if name in FACTS else None
        if expected:
            raise InputError(f"{path}: {name} is not {expected}; {remedy}")


def warn_of_fallbacks(s, stored, path):
    """Warn of settings that have no effect because the facts `stored` in a file differ."""
    for name, nothing in FALLBACKS.items():
        value = getattr(s, name)
        if name in stored and value != nothing and not np.array_equal(value, stored[name]):
            warn(f"{name} {value} without effect: {path} was trained with {stored[name]}")


def check_number(low, high, optional=False):
    """Return the check of a finite number in [low, high]."""
    def check(value):
        good = (isinstance(value, (int, float)) and not isinstance(value, bool)
                and low <= value <= high)  # false for NaN
        return None if good or (optional and value is None) else f"a number in [{low:g}, {high:g}]"
    return check


def check_whole(low, high):
    """Return the check of a whole number in [low, high]."""
    def check(value):
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if good else f"a whole number in [{low}, {high}]"
    return check


def check_channels(low):
    """Return the check of three finite numbers in [low, 1000], one per colour."""
    def check(value):
        good = len(value) == 3 and not any(map(check_number(low, 1e3), value))
        return None if good else f"three numbers in [{low:g}, 1000]"
    return check


def is_text(value):
    """Return whether a value is a printable text of at most LONGEST characters."""
    return isinstance(value, str) and len(value) <= LONGEST and not SURROGATES.search(value)


def check_switch(value):
    """Check True or False."""
    return None if isinstance(value, bool) else "true or false"


def check_interpolation(value):
    """Check the name of a way to resize."""
    return None if value in INTERPOLATIONS else f"one of {', '.join(INTERPOLATIONS)}"


def check_names(value):
    """Check the Latin names of a checkpoint."""
    good = isinstance(value, list) and value and all(
        is_text(name) and name.strip() for name in value)
    return None if good and len(set(value)) == len(value) else "a list of different Latin names"


def check_classes(value):
    """Check a list of classes, each a dictionary of texts with a Latin name, all different."""
    good = isinstance(value, list) and all(
        isinstance(plant, dict) and all(is_text(plant.get(key, "")) for key in (*TEXTS, *CREDIT))
        and is_base64(plant.get("picture", "")) for plant in value)
    if not good or check_names([plant.get("latin", "") for plant in value]):
        return "a list of classes with different Latin names"
    return None


def is_base64(text):
    """Return whether a text is base64, of at most a million characters."""
    try:
        return len(text) < 1e6 and base64.b64decode(text, validate=True) is not None
    except (ValueError, TypeError):
        return False


def check_answers(value):
    """Check the limits of `evaluation.answers.fit_answers`, None included."""
    if value is None:
        return None
    limit = check_number(0, 1)
    good = (isinstance(value, dict) and isinstance(value.get("source"), str)
            and check_whole(0, 10**9)(value.get("photographs")) is None
            and limit(value.get("set_limit")) is None
            and is_line(value.get("temperature_by_score", [0.0, 0.0]))
            and isinstance(value.get("together", {}), dict)
            and limit(correlation_of(value)) is None
            and isinstance(value.get("limits"), dict)
            and all(isinstance(value["limits"].get(rank), list)
                    and len(value["limits"][rank]) == len(RISKS)
                    and not any(map(limit, value["limits"][rank])) for rank in RANKS))
    return None if good else f"limits in [0, 1] for {len(RISKS)} risks and {len(RANKS)} ranks"


def is_line(value):
    """Return whether a value is a slope of at least 0 and a center, finite numbers."""
    return (isinstance(value, (list, tuple)) and len(value) == 2
            and not any(map(check_number(-1e9, 1e9), value)) and value[0] >= 0)


def check_unknown(value):
    """Check what was measured on photographs of unknown plants, None included."""
    share, count = check_number(0, 1), check_whole(1, 10**9)
    good = value is None or (isinstance(value, dict) and not any(
        share(value[key]) or count(value.get(among)) for key, among in MEASURED.items()
        if key in value))
    return None if good else "a measurement with shares in [0, 1], and of how many photographs"


FACTS = {
    "class_names": check_names, "classes": check_classes, "image_size": check_whole(16, 4096),
    "mean": check_channels(-1e3), "std": check_channels(1e-3),
    "crop": check_number(0.1, 1), "interpolation": check_interpolation,
    "temperature": check_number(1e-3, 1e3, optional=True), "flip_tta": check_switch,
    "out_of_distribution_threshold": check_number(-1e9, 1e9, optional=True),
    "answers": check_answers, "unknown": check_unknown,
    "validation_share": check_number(0, 1), "split_seed": check_whole(-2**63, 2**63),
}

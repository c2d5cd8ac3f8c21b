"""Checks of the facts stored with a network, in a checkpoint or an ONNX file.

`FACTS` is the table: whether a value is good, and what is expected in words. Files may come from
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
    """Raise InputError for the first of the facts {name: value} that FACTS does not allow."""
    for name, value in facts.items():
        is_good, expected = FACTS.get(name, (None, ""))
        if is_good and not is_good(value):
            raise InputError(f"{path}: {name} is not {expected}; {remedy}")


def warn_of_fallbacks(s, stored, path):
    """Warn of settings that have no effect because the facts `stored` in a file differ."""
    for name, nothing in FALLBACKS.items():
        value = getattr(s, name)
        if name in stored and value != nothing and not np.array_equal(value, stored[name]):
            warn(f"{name} {value} without effect: {path} was trained with {stored[name]}")


def number_within(low, high, whole=False, optional=False):
    """Return (check, words) of a finite number in [low, high]; `optional` allows None."""
    kind = int if whole else (int, float)

    def is_good(value):
        return (optional and value is None) or (
            isinstance(value, kind) and not isinstance(value, bool)
            and low <= value <= high)  # false for NaN
    return is_good, f"a {'whole ' * whole}number in [{low:g}, {high:g}]"


is_share, _ = number_within(0, 1)
is_count, _ = number_within(0, 10**9, whole=True)


def channels_within(low):
    """Return (check, words) of three finite numbers in [low, 1000], one per colour."""
    is_good, _ = number_within(low, 1e3)
    return (lambda value: len(value) == 3 and all(map(is_good, value)),
            f"three numbers in [{low:g}, 1000]")


def is_text(value):
    """Return whether a value is a printable text of at most LONGEST characters."""
    return isinstance(value, str) and len(value) <= LONGEST and not SURROGATES.search(value)


def are_names(value):
    """Return whether a value is a list of different Latin names."""
    return (isinstance(value, list) and len(value) > 0
            and all(is_text(name) and name.strip() for name in value)
            and len(set(value)) == len(value))


def are_classes(value):
    """Return whether a value is a list of classes, dictionaries of texts with different names."""
    return (isinstance(value, list) and all(
        isinstance(plant, dict) and all(is_text(plant.get(key, "")) for key in (*TEXTS, *CREDIT))
        and is_base64(plant.get("picture", "")) for plant in value)
        and are_names([plant.get("latin", "") for plant in value]))


def is_base64(text):
    """Return whether a text is base64, of at most a million characters."""
    try:
        return len(text) < 1e6 and base64.b64decode(text, validate=True) is not None
    except (ValueError, TypeError):
        return False


def are_limits(value):
    """Return whether a value is the entry of `evaluation.answers.fit_answers`, or None."""
    return value is None or (
        isinstance(value, dict) and isinstance(value.get("source"), str)
        and is_count(value.get("photographs"))
        and is_share(value.get("set_limit"))
        and is_line(value.get("temperature_by_score", [0.0, 0.0]))
        and isinstance(value.get("together", {}), dict) and is_share(correlation_of(value))
        and isinstance(value.get("limits"), dict)
        and all(isinstance(value["limits"].get(rank), list)
                and len(value["limits"][rank]) == len(RISKS)
                and all(map(is_share, value["limits"][rank])) for rank in RANKS))


def is_line(value):
    """Return whether a value is a slope of at least 0 and a center, finite numbers."""
    is_good, _ = number_within(-1e9, 1e9)
    return (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_good, value))
            and value[0] >= 0)


def is_measurement(value):
    """Return whether a value is what was measured on photographs of unknown plants, or None."""
    return value is None or (isinstance(value, dict) and all(
        is_share(value[key]) and is_count(value.get(among)) and value[among] > 0
        for key, among in MEASURED.items() if key in value))


FACTS = {
    "class_names": (are_names, "a list of different Latin names"),
    "classes": (are_classes, "a list of classes with different Latin names"),
    "image_size": number_within(16, 4096, whole=True),
    "mean": channels_within(-1e3), "std": channels_within(1e-3), "crop": number_within(0.1, 1),
    "interpolation": (INTERPOLATIONS.__contains__, f"one of {', '.join(INTERPOLATIONS)}"),
    "temperature": number_within(1e-3, 1e3, optional=True),
    "flip_tta": (lambda value: isinstance(value, bool), "true or false"),
    "out_of_distribution_threshold": number_within(-1e9, 1e9, optional=True),
    "answers": (are_limits, f"limits in [0, 1] for {len(RISKS)} risks and {len(RANKS)} ranks"),
    "unknown": (is_measurement,
                "a measurement with shares in [0, 1], and of how many photographs"),
    "validation_share": number_within(0, 1), "split_seed": number_within(-2**63, 2**63, whole=True),
}

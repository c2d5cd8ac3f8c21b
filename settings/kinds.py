"""Kinds of settings: type, range and choices.

settings/table.py gives every setting a `Kind`. settings/command_line.py checks values of config.py
and of JSON files with `Kind.check`, texts of flags with `Kind.read`.
"""
import ast
import json
import math
import re
from pathlib import Path
from typing import NamedTuple

SINGULARS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text",
             Path: "a path"}
PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}


class Kind(NamedTuple):
    """The values a setting may have.

    With `several`, a value is a tuple of `count` items (None: any number), and the other fields
    describe an item.
    """

    type: type
    several: bool = False
    count: int | None = None
    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False  # `low` itself is not allowed
    open_high: bool = False
    choices: tuple = ()
    pattern: str = ""  # regular expression that a text must match unless it is one of the choices
    form: str = ""  # what `pattern` means, in words
    separator: str = ""  # where set, one text may name several choices, separated by it
    optional: bool = False  # 0, or () with `several`, is allowed and means the default elsewhere

    def check(self, value, folder):
        """Return `value` in the type of this kind; a relative path is relative to `folder`.

        Raises ValueError that says what is expected.
        """
        if self.optional and value in (0, (), []) and value is not False:
            return () if self.several else 0
        if not self.several:
            return self._check_one(value, folder)
        # JSON has lists, not tuples; a string comes from ("a") where ("a",) was meant.
        if not isinstance(value, (tuple, list)) or (self.count or len(value)) != len(value):
            hint = (f"; write {(value,)!r}, with a comma, or in JSON {json.dumps([value])}"
                    if isinstance(value, str) else "")
            raise ValueError(f"expected {self.describe()}, got {value!r}{hint}")
        return tuple(self._check_one(item, folder) for item in value)

    def _check_one(self, value, folder):
        if self.type is Path and isinstance(value, (str, Path)) and str(value):
            return self._find_path(str(value), folder)
        if self.type is float and type(value) is int:
            value = float(value) if abs(value) < 1e300 else math.inf  # float() raises above
        # Not isinstance, since True is an instance of int.
        if type(value) is not self.type or not (self._in_range(value) and self._fits(value)):
            raise ValueError(f"expected {self.describe()}, got {value!r}")
        return value

    def _find_path(self, text, folder):
        try:
            if "\0" not in text:  # at which open() would raise
                return Path(folder, Path(text).expanduser())
        except RuntimeError:  # ~name of a user that this machine does not have
            pass
        raise ValueError(f"expected {self.describe()}, got {text!r}")

    def _in_range(self, value):
        if self.type not in (int, float):
            return True
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def _fits(self, value):
        """Return whether a text consists of the choices or matches the pattern, if any."""
        if not (self.choices or self.pattern):
            return not isinstance(value, str) or "\0" not in value  # no name contains NUL
        parts = value.split(self.separator) if self.separator else [value]
        return all(part.strip() in self.choices or (
            self.pattern and re.fullmatch(self.pattern, part)) for part in parts)

    def read(self, text, folder):
        """Return the value of a flag's text; raises ValueError as `check` does.

        Not for `bool`: argparse itself turns --name and --no-name into True and False.
        """
        if self.several:
            return self.check(_read_tuple(text, self.type), folder)
        try:
            value = self.type(text) if self.type in (int, float) else text
        except ValueError:
            raise ValueError(f"expected {self.describe()}, got {text!r}") from None
        return self.check(value, folder)

    def range(self):
        """Return the range in words, as in the comments of config.py; "" if unlimited."""
        low, high = f"{self.low:g}", f"{self.high:g}"
        if self.low == -math.inf and self.high == math.inf:
            return ""
        if self.high == math.inf:
            return f"above {low}" if self.open_low else f"at least {low}"
        if self.type is int and not (self.open_low or self.open_high):
            return f"{low} to {high}"
        return f"in {'(' if self.open_low else '['}{low}, {high}{')' if self.open_high else ']'}"

    def describe(self):
        """Return the allowed values in words."""
        if self.choices or self.pattern:
            known = ", ".join(choice or '""' for choice in self.choices)
            words = " or ".join(filter(None, (known, self.form)))
            if self.separator:
                return f"one or more of {words}, separated by {self.separator!r}"
            return f"a tuple of {words}" if self.several else f"one of {words}"
        words = " ".join(filter(None, (SINGULARS[self.type], self.range())))
        if not self.several:
            return words + " or 0" * self.optional
        many = " ".join(filter(None, (PLURALS[self.type], self.range())))
        return f"a tuple of {self.count or 'any number of'} {many}" + " or ()" * self.optional


def _read_tuple(text, item_type):
    """Return the tuple in a text: ("a", "b") and [1, 2] as in Python, or a,b and 1,2."""
    try:
        value = ast.literal_eval(text)
        if isinstance(value, (tuple, list)):
            return tuple(value)
    except (SyntaxError, ValueError):
        pass
    parts = [part.strip(" '\"") for part in text.strip("()[] ").split(",")]
    try:
        return tuple(item_type(part) for part in parts if part)
    except ValueError:
        raise ValueError(f"expected {PLURALS[item_type]} separated by commas, "
                         f"got {text!r}") from None


PATH, SWITCH, TEXT, TEXTS = Kind(Path), Kind(bool), Kind(str), Kind(str, several=True)


def whole(low=-math.inf, high=math.inf, **more):
    """Return the kind of a whole number from `low` to `high`; `more` are other fields of `Kind`."""
    return Kind(int, low=low, high=high, **more)


def number(low=-math.inf, high=math.inf, above=None, below=None, **more):
    """Return the kind of a finite number from `low` to `high`, or `above` and `below` a limit."""
    return Kind(float, low=low if above is None else above, high=high if below is None else below,
                open_low=above is not None, open_high=below is not None, **more)


def choice(*choices, **more):
    """Return the kind of a text that is one of the choices, or matches the `pattern` in `more`."""
    return Kind(str, choices=choices, **more)

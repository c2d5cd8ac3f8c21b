"""Names: compared, and as file names; texts in table cells; durations in words."""
import csv
import re
import unicodedata
from functools import cache
from pathlib import PurePosixPath
from types import SimpleNamespace

# What spreadsheets run as a formula: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = re.compile(r"'*[=+\-@\t\r]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Control characters and those of text direction, with which a text could forge lines of output.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FOLDER_ALIASES = {"Taxus baccat": "Taxus baccata"}  # a misspelt folder of the published dataset
# Lower-case Cyrillic and Greek letters that look like Latin ones; ё, often written е; hyphens.
LOOK_ALIKES = str.maketrans("асеёіјорѕухԁһѵαονρι-", "aceeijopsyxdhvaovpi_")
# Names that some system does not allow for a folder, such as Windows' device names:
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
NO_FOLDER = re.compile(r'[/\\:*?"<>|\x00-\x1f]|^\.|[. ]$|'
                       r"^(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\.|$)", re.IGNORECASE)


def plain_name(name):
    """Return a name with single spaces and without invisible characters."""
    return " ".join("".join(letter for letter in name
                            if unicodedata.category(letter) != "Cf").split())


@cache  # called for every photograph, with few different names
def slug(latin):
    """Return a Latin name as in published file names: lower case, `_` for spaces and dots.

    The hybrid sign becomes x: Mentha × piperita is mentha_x_piperita.
    """
    latin = unicodedata.normalize("NFC", latin).lower().replace("×", " x ")
    return re.sub(r"(?:[^\w-]|_)+", "_", latin).strip("_")


@cache
def look(latin):
    """Return a key that is equal for names that a reader takes for the same."""
    return slug(latin).translate(LOOK_ALIKES)


def describe_spelling(name, other):
    """Return a phrase naming the letters of `name` that only look like those of `other`, or ""."""
    strange = sorted(set(name) - set(other)) if slug(name) != slug(other) else []
    letters = ", ".join(f"{letter} is U+{ord(letter):04X} {unicodedata.name(letter, '')}".rstrip()
                        for letter in strange)
    return f" as {other!r}, which looks the same ({letters})" if letters else ""


def class_of_folder(name, classes):
    """Return the `PlantClass` of a folder name, or None.

    This ignores case, `_` or `-` for space, how accents are stored (macOS and ZIP files separate
    them from their letters), and Cyrillic or Greek letters that look like Latin ones.
    """
    wanted = look(FOLDER_ALIASES.get(name, name))
    return next((plant for plant in classes if look(plant.latin) == wanted), None)


def present_name(name, renamed):
    """Return the present name of a class; `renamed` maps the `look` of a former one to it."""
    return renamed.get(look(name), name)


def all_names(plant):
    """Return the names of a class that are not empty, the Latin one first."""
    return [name for name in (plant.latin, plant.russian, plant.english, *plant.also) if name]


def genus_of(latin):
    """Return the first word of a Latin name, ignoring a hybrid sign."""
    return next((word for word in latin.split() if word not in ("x", "X", "×")), latin)


def table_path(text):
    r"""Return a path of a table with `/` between its parts: .\a\b.jpg is a/b.jpg."""
    return PurePosixPath(text.replace("\\", "/")).as_posix()


def leaves_folder(path):
    """Return whether a `table_path` may lie outside its folder."""
    return bool(re.match(r"/|\w:|(.*/)?\.\.(/|$)", path))


def list_some(names):
    """Return the first five names as text, with ", ..." if there are more."""
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)


# ---- lines and cells ----

def escape_controls(text, keep=""):
    r"""Return a text with control characters, but `keep`, and text direction escaped, like \r."""
    return CONTROLS.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)


def escape_cell(value):
    """Return a table cell's value with a quote before it if a spreadsheet would run it."""
    if isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def table_writer(file, columns, separator=","):
    r"""Return a csv.DictWriter whose lines end in "\n"; other keys of a row are left out.

    The csv module writes "\r\n", which is replaced: before Python 3.13, it quotes a cell with "\r",
    where a reader would otherwise begin another row, only if lines end so.
    """
    lines = SimpleNamespace(write=lambda line: file.write(line.removesuffix("\r\n") + "\n"))
    return csv.DictWriter(lines, columns, restval="", extrasaction="ignore", delimiter=separator,
                          lineterminator="\r\n")


def plain_column(name):
    """Return a column's name in lower case, unless it is like datasetKey, and without spaces."""
    return name.strip() if re.search("[a-z][A-Z]", name) else name.strip().lower()


def exact_cell(text):
    """Return the text that `escape_cell` escaped."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def whole_number(text):
    """Return the number that 1 to 18 digits stand for, None for another text (int() may fail)."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def describe_seconds(seconds):
    """Return a duration in words: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

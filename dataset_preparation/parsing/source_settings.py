"""Settings that select photographs, and the sources that support them."""
from typing import NamedTuple

from utils import InputError, warn

APIS = ("inaturalist", "gbif", "commons", "open_data")
RECORDS = ("inaturalist", "gbif", "open_data")  # of observations, by place
# Setting that selects photographs -> the sources that follow it; those only for Yandex begin with
# image_search.
FOLLOWED_BY = {
    "licenses": APIS, "photo_size": APIS, "spread_pages": ("inaturalist", "gbif", "commons"),
    "spread_seed": APIS, "area": RECORDS, "photos_per_observation": RECORDS,
    "kingdoms": RECORDS, "cultivated": ("inaturalist", "gbif"),
    "phenology": ("inaturalist", "gbif"), "commons_search": ("commons",),
    "open_data": ("open_data",), "similar_to": ("yandex",), "similar_results": ("yandex",)}
# Values of these that select nothing; any other value must be followed or refused.
OFF = {"area": "", "cultivated": "no", "phenology": "", "open_data": ""}
AREAS = {"crimea": (32.4, 44.3, 36.7, 46.3)}  # west, south, east, north, degrees
# usual megabytes of a photograph, of 240, 500, 1024 and 2048 pixels on the longer side
PHOTO_MB = {"small": 0.03, "medium": 0.15, "large": 0.5, "original": 2.0}


def require_followed(s, given, names):
    """Raise InputError for a setting that none of the named sources follows; warn if only some do.

    `given` are the settings given by flags or a settings file: {NAME: value}.
    """
    values = vars(s)
    followed = {**FOLLOWED_BY, **{name: ("yandex",) for name in values
                                  if name.startswith("image_search")}}
    for setting, sources in followed.items():
        is_set = setting.upper() in given or values[setting] != OFF.get(setting, values[setting])
        ignoring = [name for name in names if name not in sources]
        if is_set and len(ignoring) == len(names):
            raise InputError(
                f"--{setting} {values[setting]}: {' and '.join(names)} cannot follow it; leave it "
                f"out, or choose a --source that can: {', '.join(sources)}")
        if is_set and ignoring:
            warn(f"--{setting} {values[setting]}: {' and '.join(ignoring)} cannot follow it and "
                 "will bring photographs without regard to it")
    if "yandex" in names and "LICENSES" not in given:
        print("yandex states no licences: its photographs are for research only")


class Options(NamedTuple):
    """What to search for in every REST API, and how often it may be requested."""

    area: tuple  # west, south, east, north in degrees; None = the whole world
    licenses: tuple
    kingdoms: tuple  # that a name may belong to
    per_observation: int  # photographs of one plant, 0 = all
    delay: float  # seconds between two requests
    size: str = "medium"  # of iNaturalist's sizes
    cultivated: str = "no"  # cultivated plants: no, too, only
    phenology: str = ""  # of the plant: flowers, fruits, buds, none; "" = any
    spread_pages: int = 10  # further pages to choose from, 0 = take the first results
    seed: int = 0  # of that choice
    folder: object = ""  # to keep the pages in


def build_options(s):
    """Return the `Options` of the settings."""
    return Options(read_area(s.area), s.licenses, s.kingdoms, s.photos_per_observation, s.api_delay,
                   s.photo_size, s.cultivated, s.phenology, s.spread_pages, s.spread_seed,
                   s.collected_dir)


def read_area(text):
    """Return (west, south, east, north) in degrees of a named area or four numbers, None for ""."""
    if not text:
        return None
    try:
        west, south, east, north = AREAS.get(text.lower()) or map(float, text.split(","))
    except ValueError:
        west, south, east, north = 0, 0, 0, 0
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise InputError(f'AREA is {text!r}; give "{", ".join(AREAS)}" or "west,south,east,north" '
                         "in degrees")
    return west, south, east, north

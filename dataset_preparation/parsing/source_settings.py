"""Which sources follow which settings, so that none is given to a source that ignores it."""
from utils import InputError, warn

APIS = ("inaturalist", "gbif", "commons", "open_data")
RECORDS = ("inaturalist", "gbif", "open_data")  # of observations, by place
# Setting that selects photographs -> the sources that follow it; those of Yandex's own begin with
# image_search.
FOLLOWED_BY = {
    "licenses": APIS, "photo_size": APIS, "spread_pages": ("inaturalist", "gbif", "commons"),
    "spread_seed": APIS, "area": RECORDS, "photos_per_observation": RECORDS,
    "kingdoms": RECORDS, "cultivated": ("inaturalist", "gbif"),
    "phenology": ("inaturalist", "gbif"), "place_id": ("inaturalist",), "herbarium": ("gbif",),
    "life_stage": ("gbif",), "gbif_checklist": ("gbif",), "commons_search": ("commons",),
    "open_data": ("open_data",), "similar_to": ("yandex",), "similar_results": ("yandex",)}
# Of these, the values that select nothing; any other is followed or refused, wherever it is set.
OFF = {"area": "", "place_id": 0, "cultivated": "no", "phenology": "", "life_stage": "",
       "open_data": ""}


def require_followed(s, given, names):
    """Raise InputError for a setting that none of the named sources follows; warn where one does.

    `given` are the settings that flags or a settings file give: {NAME: value}.
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

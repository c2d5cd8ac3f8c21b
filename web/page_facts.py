"""The facts about a network that the pages need: names, notes, limits, credits."""
from evaluation.answers import limits_at, taxa_of
from evaluation.prediction_output import LANGUAGES
from evaluation.together import correlation_of

NAMES = 5  # least number of names per photograph; more with --top
CREDITS = ("author", "license", "url", "image")


def page_facts(predictor, examples, s):
    """Return what both pages show: classes with the credits of their examples, and limits.

    `examples` is a list of dictionaries for each class.
    """
    view = predictor.view
    return {
        "classes": [{**{key: getattr(plant, key) for key in (*LANGUAGES, "note_en", "note_ru")},
                     "examples": [{key: row[key] for key in CREDITS if key in row} for row in rows]}
                    for plant, rows in zip(predictor.classes, examples, strict=True)],
        "heat": predictor.network is not None,
        "crop": view.image_size / view.resized_side,  # of the shorter side of the photograph
        "unknown": (predictor.unknown or {}).get("named"),
        "out_of_distribution": predictor.ood_threshold is not None,
        "calibrated": predictor.temperature != 1.0,
        "calibrated_on": (predictor.answers or {}).get("photographs"), "max_risk": s.max_risk,
        "upload_mb": s.upload_mb, "megapixels": s.max_megapixels}


def network_facts(predictor, s):
    """Return what web/decide.js needs to interpret the network's outputs as predict.py does."""
    view = predictor.view
    return {
        "view": {**view._asdict(), "resized_side": view.resized_side},
        "temperature": predictor.temperature,
        "temperature_by_score": (predictor.answers or {}).get("temperature_by_score", [0, 0]),
        "flip_tta": predictor.flip_tta, "threshold": predictor.ood_threshold,
        "limits": limits_at(predictor.answers, s.max_risk),
        "set_limit": predictor.answers and predictor.answers["set_limit"],
        "taxa": {rank: names.tolist() for rank, names in taxa_of(predictor.classes).items()},
        "top": s.top, "same_plant": correlation_of(predictor.answers)}

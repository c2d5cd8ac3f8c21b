"""The table `cleaned.csv`: one row per collected file, with its status and the reason."""
from utils import InputError, read_table

COLUMNS = (
    "file",  # path below <COLLECTED_DIR>/images
    "class",  # Latin name of the class it was collected for; decisions.csv refers to it
    "label_class",  # the same class, unless a decision moved the photograph
    "label",  # integer label of `label_class`, empty if it is not in the class table
    "sha256",  # of the collected file
    "width", "height",  # pixels, upright and at full size; empty if it could not be decoded
    "camera", "taken",  # make, model and serial number, and time, of EXIF; labelling groups by them
    "status",  # kept, duplicate (of `keeper`), review (one picture under several names) or rejected
    "reason",  # why it is not kept
    "group",  # of near-duplicates: first 16 digits of the smallest SHA-256 in it
    "keeper",  # file of the group's best photograph
    "distance",  # bits of 64 by which the first hash differs from the keeper's
    "near",  # file of the closest borderline partner, which may be a near-duplicate
    "near_alike",  # share of the common pixels that agree with that partner's
    "proposal", "proposal_probability",  # class proposed for a doubtful label, in [0, 1]
    "sharpness", "brightness", "aspect", "emptiness", "paper",  # scores, see quality_scores.py
    "label_score", "outlier_score",  # scores, see find_label_errors.py
    "suspicion",  # in [0, 1]: the order of the review, 1 first
    "suspected",  # the suspicions as words joined by ", "
)
SCORES = ("label_score", "proposal", "proposal_probability", "outlier_score")  # of label_scores.csv


def cleaned_name(row):
    """Return where a row's cleaned photograph is below images/ (if it is kept) or others/."""
    return f"{row['label_class']}/{row['sha256'][:16]}.jpg"


def cleaned_path(row):
    """Return the path of a row's cleaned photograph below <CLEANED_DIR>."""
    return f"{'images' if row['status'] == 'kept' else 'others'}/{cleaned_name(row)}"


def read_label_scores(path):
    """Return {(SHA-256, label_class): its `SCORES`}, {} if there is no table."""
    try:
        rows = read_table(path, ("sha256", "class", *SCORES)) if path.is_file() else ()
    except InputError as error:
        raise InputError(f"{error}. Delete it, or run find_label_errors.py again") from None
    return {(row["sha256"], row["class"]): {name: row[name] for name in SCORES} for row in rows}

"""Which script takes which settings.

Groups of `table.GROUPS` are in lower case, single settings in upper case.
"""
from settings.table import GROUPS

CHECKPOINT = ("CHECKPOINTS_DIR CHECKPOINT "
              "IMAGE_SIZE MEAN STD FLIP_TTA")  # these four for old checkpoints without them
LOADING = "DEVICE NUM_WORKERS CACHE CACHE_DIR MAX_MEGAPIXELS"
TRAINING = ("classes data model training DATASET_DIR CHECKPOINTS_DIR RUNS_DIR "
            f"{LOADING} BFLOAT16 MICRO_BATCH COMPILE BACKGROUND")
PREDICTION = f"classes {CHECKPOINT} ONNX TOP MAX_RISK DEVICE MAX_MEGAPIXELS"

SCRIPTS = {
    "download_files.py": "downloads network DATASET_DIR CHECKPOINTS_DIR",
    "parsing.py": "classes collecting network COLLECTED_DIR",
    "cleaning.py": "classes cleaning COLLECTED_DIR CLEANED_DIR",
    "review.py": "CLASS_TABLE COLLECTED_DIR CLEANED_DIR MAX_MEGAPIXELS REVIEW_PORT OPEN_BROWSER",
    "find_label_errors.py": "classes COLLECTED_DIR CLEANED_DIR DATASET_DIR LABEL_FOLDS SPLIT_SEED "
                            "SERIES_MINUTES SEED MODEL INITIAL_WEIGHTS IMAGE_SIZE MEAN STD "
                            "BATCH_SIZE DEVICE NUM_WORKERS CACHE_DIR MAX_MEGAPIXELS",
    "labeling.py": "classes labelling LICENSES COLLECTED_DIR CLEANED_DIR DATASET_DIR SPLIT_SEED "
                   "MAX_MEGAPIXELS PROCESSES",
    "train.py": f"{TRAINING} RUN RESUME_CHANGED",
    "hyperparameter_optimization.py": f"search {TRAINING}",
    "evaluate.py": f"classes evaluation {CHECKPOINT} DATASET_DIR RUNS_DIR MAX_RISK BATCH_SIZE "
                   "DEVICE NUM_WORKERS CACHE_DIR MAX_MEGAPIXELS",
    "predict.py": f"{PREDICTION} MAX_FILE_MB FORMAT TOGETHER BATCH_SIZE",
    "app.py": f"{PREDICTION} pages app DATASET_DIR COLLECTED_DIR WEB",
    "export.py": f"classes {CHECKPOINT} HALF MAX_DROP CHECK_PHOTOS DATASET_DIR VALIDATION_SHARE "
                 "SPLIT_SEED MAX_FILE_MB MAX_MEGAPIXELS MAX_RISK WEB ONNXRUNTIME_WEB "
                 "network",
    "pack.py": "classes packing COLLECTED_DIR DATASET_DIR CHECKPOINTS_DIR RUNS_DIR CHECKPOINT "
               "MAX_UNPACKED_GB",
    # passed on to the scripts that it runs
    "quickstart.py": "quickstart cleaning labelling data model training evaluation DEVICE CACHE "
                     "NUM_WORKERS",
    "config.py": " ".join(GROUPS),
}


def settings_of(script):
    """Return {heading: [setting, ...]} that a script takes, in the order of config.py."""
    taken = set(SCRIPTS[script].split())
    chosen = {heading: [name for name in group if heading in taken or name in taken]
              for heading, group in GROUPS.items()}
    return {heading: names for heading, names in chosen.items() if names}


def names_of(script):
    """Return the list of settings that a script takes."""
    return [name for names in settings_of(script).values() for name in names]


def scripts_with(setting):
    """Return the names of the scripts that take a setting."""
    return [script for script in SCRIPTS if script != "config.py" and setting in names_of(script)]

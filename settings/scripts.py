"""Which script takes which settings: groups of `table.GROUPS` in lower case, single settings in upper case."""
from settings.table import GROUPS

NETWORK_FILE = "CHECKPOINTS_DIR CHECKPOINT IMAGE_SIZE MEAN STD FLIP_TTA"  # the last four: for an old checkpoint
READING = "DEVICE NUM_WORKERS CACHE CACHE_DIR MAX_MEGAPIXELS"
TRAINING = f"classes data model training DATASET_DIR CHECKPOINTS_DIR RUNS_DIR {READING} BFLOAT16 COMPILE"

SCRIPTS = {
    "download_files.py": "downloads DATASET_DIR CHECKPOINTS_DIR",
    "parsing.py": "classes collecting COLLECTED_DIR",
    "cleaning.py": "classes cleaning COLLECTED_DIR CLEANED_DIR",
    "review.py": "CLASS_TABLE COLLECTED_DIR CLEANED_DIR MAX_MEGAPIXELS REVIEW_PORT OPEN_BROWSER",
    "find_label_errors.py": f"classes DATASET_DIR CLEANED_DIR LABEL_FOLDS SPLIT_SEED SEED MODEL INITIAL_WEIGHTS "
                            f"IMAGE_SIZE MEAN STD BATCH_SIZE {READING}",
    "labeling.py": "classes labelling COLLECTED_DIR CLEANED_DIR DATASET_DIR SPLIT_SEED MAX_MEGAPIXELS PROCESSES",
    "train.py": f"{TRAINING} RUN RESUME_CHANGED",
    "hyperparameter_optimization.py": f"search {TRAINING}",
    "evaluate.py": f"classes evaluation {NETWORK_FILE} DATASET_DIR RUNS_DIR BATCH_SIZE MAX_RISK DEVICE NUM_WORKERS "
                   "MAX_MEGAPIXELS",
    "predict.py": f"classes {NETWORK_FILE} ONNX TOP MAX_RISK FORMAT BATCH_SIZE DEVICE MAX_FILE_MB MAX_MEGAPIXELS",
    "app.py": f"classes pages app {NETWORK_FILE} ONNX TOP MAX_RISK DATASET_DIR DEVICE MAX_FILE_MB MAX_MEGAPIXELS",
    "export.py": f"classes {NETWORK_FILE} HALF MAX_DROP CHECK_PHOTOS DATASET_DIR VALIDATION_SHARE SPLIT_SEED "
                 "MAX_FILE_MB MAX_MEGAPIXELS",
    "pack.py": "classes packing COLLECTED_DIR DATASET_DIR CHECKPOINTS_DIR RUNS_DIR CHECKPOINT MAX_UNPACKED_GB",
    # passed on to the scripts that it runs
    "quickstart.py": "quickstart cleaning labelling data model training evaluation DEVICE CACHE NUM_WORKERS",
    "config.py": " ".join(GROUPS),
}


def settings_of(script):
    """Return {heading: [setting, ...]} that a script takes, in the order of config.py."""
    taken = set(SCRIPTS[script].split())
    chosen = {heading: [name for name in group if heading in taken or name in taken]
              for heading, group in GROUPS.items()}
    return {heading: names for heading, names in chosen.items() if names}


def scripts_with(setting):
    """Return the names of the scripts that take a setting."""
    return [script for script in SCRIPTS if script != "config.py"
            and any(setting in names for names in settings_of(script).values())]

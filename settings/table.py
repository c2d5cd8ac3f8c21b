"""What every setting may be: a line per line of config.py, under the same headings.

Editing a value or a comment of config.py changes nothing here. settings/scripts.py says which scripts
take a setting.
"""
from settings.kinds import choice, listed, number, numbers, path, switch, text, texts, whole

# ---- choices that several settings share ----

NETWORKS = ("alexnet", "convnext_tiny", "densenet121", "densenet201", "resnet18", "mobilenet_v3_small",
            "mobilenet_v3_large", "plain_cnn")
SEARCHED = ("learning_rate", "backbone_learning_rate", "layer_decay", "weight_decay", "batch_size",
            "label_smoothing", "crop_scale_min", "color_jitter", "erasing", "trivial_augment", "mixup", "cutmix",
            "freeze_backbone")
LICENSES = ("cc0", "pd", "cc-by", "cc-by-sa", "cc-by-nc", "cc-by-nc-sa", "cc-by-nd", "cc-by-nc-nd")
KINGDOMS = ("Animalia", "Archaea", "Bacteria", "Chromista", "Fungi", "Plantae", "Protozoa", "Viruses")
MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa", "La",
         "I;16", "I;16L", "I;16B")
NUMBER = r"\s*-?\d+(\.\d*)?\s*"
ADDRESS = {"pattern": "(?i)https?://.+", "form": "an address that begins with http:// or https://"}
SHA256 = {"pattern": "[0-9a-fA-F]{64}", "form": "64 hex digits"}

# Heading of config.py: its settings, in the order of the file.
GROUPS = {
    "classes": {
        "CLASS_TABLE": path(),
        "LIMIT_CLASSES": whole(0),
    },
    "folders": {
        "COLLECTED_DIR": path(),
        "CLEANED_DIR": path(),
        "DATASET_DIR": path(),
        "CHECKPOINTS_DIR": path(),
        "RUNS_DIR": path(),
        "CACHE_DIR": path(),
    },
    "downloads": {
        "DATASET_URL": text(),
        "DATASET_SHA256": choice("", **SHA256),
        "CHECKPOINT_URL": text(),
        "CHECKPOINT_SHA256": choice("", **SHA256),
        "DOWNLOAD_TIMEOUT": number(above=0),
        "DOWNLOAD_ATTEMPTS": whole(1),
        "MAX_UNPACKED_GB": number(above=0),
        "REPLACE_DOWNLOADED": switch(),
    },
    "collecting": {
        "SOURCE": listed("yandex", "inaturalist", "gbif"),
        "CLASSES": text(),
        "NAME_RESULTS": whole(1),
        "SYNONYM_BELOW": whole(0),
        "SIMILAR_TO": whole(0),
        "SIMILAR_RESULTS": whole(1),
        "LICENSES": texts(*LICENSES),
        "KINGDOMS": texts(*KINGDOMS),
        "AREA": choice("", "crimea", pattern="(?i)crimea|" + ",".join([NUMBER] * 4), form="west,south,east,north in degrees"),
        "PLACE_ID": whole(0),
        "PHOTO_SIZE": choice("small", "medium", "large", "original"),
        "PHOTOS_PER_OBSERVATION": whole(0),
        "HERBARIUM": switch(),
        "API_DELAY": number(0),
        "INATURALIST_URL": choice(**ADDRESS),
        "GBIF_URL": choice(**ADDRESS),
        "YANDEX_URL": choice(**ADDRESS),
        "IMAGE_SEARCH_SIZE": choice("", "large", "medium", "small", "wallpaper", pattern=r"\d+x\d+",
                                    form="a size as 1920x1080"),
        "IMAGE_SEARCH_ORIENTATION": choice("", "horizontal", "vertical", "square"),
        "IMAGE_SEARCH_TYPE": choice("", "photo", "clipart", "lineart", "face", "demotivator"),
        "IMAGE_SEARCH_COLOR": choice("", "color", "gray", "red", "orange", "yellow", "green", "cyan", "blue",
                                     "violet", "white", "black"),
        "IMAGE_SEARCH_FORMAT": choice("", "jpg", "png", "gifan"),
        "IMAGE_SEARCH_SITE": text(),
        "BROWSER": choice("firefox", "chrome", "chromium"),
        "BROWSER_ARGUMENTS": texts(),
        "HEADLESS": switch(),
        "GRID_URL": choice("", **ADDRESS),
        "PAGE_DELAY": numbers(2, at_least=0),
        "PAGE_SECONDS": number(above=0),
        "CAPTCHA_SECONDS": number(0),
        "THREADS": whole(1),
        "HOST_CONNECTIONS": whole(1),
        "HOST_DELAY": number(0),
        "HOST_GB_PER_HOUR": number(above=0),
        "HOST_GB_PER_DAY": number(above=0),
        "PHOTO_ATTEMPTS": whole(1),
        "CONNECT_SECONDS": number(above=0),
        "READ_SECONDS": number(above=0),
        "PHOTO_SECONDS": number(above=0),
        "PHOTO_MB": number(above=0),
        "PHOTO_MEGAPIXELS": number(above=0),
        "PRIVATE_HOSTS": texts(),
        "CONTACT": text(),
    },
    "cleaning": {
        "MIN_SIDE": whole(1),
        "OUTPUT_SIDE": whole(1),
        "JPEG_QUALITY": whole(1, 95),
        "MAX_FILE_MB": number(above=0),
        "MAX_MEGAPIXELS": number(above=0),
        "DECODE_SECONDS": number(above=0),
        "ACCEPTED_MODES": texts(*MODES),
        "CONVERTED_MODES": texts(*MODES),
        "DUPLICATE_RULE": choice("checked", "published"),
        "HASH": choice("phash", "dhash", "whash", "average_hash"),
        "HASH_DISTANCE": whole(-1, 64),
        "CHECK_DISTANCE": whole(0, 256),
        "BORDERLINE_DISTANCE": whole(0, 256),
        "DASK_SCHEDULER": text(),
        "PROCESSES": whole(0),
    },
    "review": {
        "REVIEW_PORT": whole(0, 65535),
        "LABEL_FOLDS": whole(2),
    },
    "labelling": {
        "TEST_PER_CLASS": whole(1),
        "CHECK": text(),
    },
    "data": {
        "SPLIT_SEED": whole(),
        "IMAGE_SIZE": whole(32),
        "VALIDATION_SHARE": number(0, below=1),
        "BALANCE": choice("none", "oversample", "sampling", "weights", "logit_adjustment"),
        "CROP_SCALE_MIN": number(above=0, at_most=1),
        "FLIP": number(0, 1),
        "TRIVIAL_AUGMENT": switch(),
        "COLOR_JITTER": number(0, 1),
        "ERASING": number(0, 1),
        "MEAN": numbers(3, at_least=0, at_most=1),
        "STD": numbers(3, above=0),
    },
    "model": {
        "MODEL": choice(*NETWORKS),
        "INITIAL_WEIGHTS": text(),
        "FREEZE_BACKBONE": switch(),
        "FREEZE_BATCHNORM": switch(),
        "BATCHNORM_MOMENTUM": number(0, 1),
    },
    "training": {
        "SEED": whole(),
        "NUM_EPOCHS": whole(0),
        "BATCH_SIZE": whole(2),
        "LINEAR_PROBE": switch(),
        "PROBE_VIEWS": whole(1),
        "LEARNING_RATE": number(above=0),
        "BACKBONE_LEARNING_RATE": number(0),
        "LAYER_DECAY": number(above=0, at_most=1),
        "WEIGHT_DECAY": number(0),
        "WARMUP_EPOCHS": number(0),
        "LABEL_SMOOTHING": number(0, below=1),
        "MIXUP": number(0),
        "CUTMIX": number(0),
        "AVERAGE_EPOCHS": whole(0),
        "PATIENCE": whole(0),
        "FLIP_TTA": switch(),
    },
    "runs": {
        "RUN": text(),
        "RESUME_CHANGED": switch(),
        "CHECKPOINT": text(),
        "DEVICE": text(),
        "CACHE": switch(),
        "BFLOAT16": switch(),
        "COMPILE": switch(),
        "NUM_WORKERS": whole(-1),
    },
    "evaluation": {
        "REPORT_PHOTOS": whole(0),
    },
    "search": {
        "SEARCH_STUDY": text(),
        "SEARCH_STORAGE": text(),
        "SEARCH_TRIALS": whole(1),
        "SEARCH_MODELS": texts(*NETWORKS),
        "SEARCH_SETTINGS": texts(*SEARCHED),
        "SEARCH_PRUNER": choice("halving", "median", "hyperband", "none"),
        "SEARCH_RETRIES": whole(0),
        "SEARCH_HEARTBEAT": whole(1),
    },
    "prediction": {
        "ONNX": text(),
        "TOP": whole(1),
        "MAX_RISK": number(0, 1),
        "HALF": switch(),
        "MAX_DROP": number(0, 1),
        "CHECK_PHOTOS": text(),
        "FORMAT": choice("table", "csv", "json"),
    },
    "pages": {
        "HOST": text(),
        "PORT": whole(0, 65535),
        "OPEN_BROWSER": switch(),
    },
    "app": {
        "UPLOAD_MB": number(above=0),
        "EXAMPLES": whole(0),
    },
    "packing": {
        "PACK": listed("dataset", "checkpoint"),
        "PACKED_DIR": path(),
        "PACKED_URL": choice("", **ADDRESS),
        "REPLACE_PACKED": switch(),
    },
    "quickstart": {
        "QUICKSTART_DIR": path(),
        "QUICKSTART_PER_CLASS": whole(1),
        "QUICKSTART_OFFLINE": switch(),
    },
}
KINDS = {name: kind for group in GROUPS.values() for name, kind in group.items()}
# Names that settings had before, accepted with a warning for one version: old name: new name.
RENAMED = {"HEAD_FIRST": "LINEAR_PROBE", "HEAD_VIEWS": "PROBE_VIEWS", "MIRRORED_VIEW": "FLIP_TTA",
           "COPY_RULE": "DUPLICATE_RULE"}

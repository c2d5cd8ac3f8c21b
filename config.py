"""Every setting, with its unit: edit a value here, or give it as a flag to a script that takes it.

    python train.py --batch_size 32 --num_epochs 5    # flags win over everything
    python train.py --settings best.json              # a JSON file wins over this one
    python config.py --batch_size 32                  # print what the scripts would use

Type, range and choices of every setting are in settings/table.py, the scripts that take it in
settings/scripts.py. A value that does not fit ends the script with status 2, whether it comes from a
flag, a file or this one.

Only `main` and `build_*` functions read settings; everything below them takes arguments, because worker
processes started afresh (Windows, macOS) see this file and not the flags.
"""
from pathlib import Path
from types import SimpleNamespace

from settings import command_line
from settings.table import GROUPS

ROOT = Path(__file__).resolve().parent

# ---- classes ----
CLASS_TABLE = ROOT / "data/crimean_plants.csv"  # CSV label,latin,russian,english,also: the one file to change for another flora
LIMIT_CLASSES = 0                         # use only the first so many classes of the table, 0 = all; at least 0

# ---- folders ----
COLLECTED_DIR = ROOT / "dataset_preparation/parsing/data"  # found.csv and images/<Latin>/ as collected
CLEANED_DIR = ROOT / "dataset_preparation/cleaning/data"  # cleaned.csv and images/<Latin>/ after cleaning
DATASET_DIR = ROOT / "data/dataset"       # train/, test/ and their *_labels.csv
CHECKPOINTS_DIR = ROOT / "checkpoints"    # one folder per run: best and last checkpoint
RUNS_DIR = ROOT / "runs"                  # one folder per run: TensorBoard events, settings, log, report
CACHE_DIR = ROOT / "data/cache"           # photographs decoded once for training, about 0.28 MB each; may be deleted at any time

# ---- downloads ----
DATASET_URL = "https://gitlab.com/glebtutik/crimean_plants_classification_files/-/raw/main/data/dataset.zip"  # address of the published photographs, about 274 MB; "" = skip
DATASET_SHA256 = ""                       # expected SHA-256 of that archive, 64 hex digits; "" = not checked
CHECKPOINT_URL = "https://gitlab.com/glebtutik/crimean_plants_classification_files/-/raw/main/checkpoints/plants_model_checkpoint.zip"  # address of the published model; "" = skip
CHECKPOINT_SHA256 = ""                    # expected SHA-256 of that archive, 64 hex digits; "" = not checked
DOWNLOAD_TIMEOUT = 30.0                   # seconds without a byte before a download attempt counts as broken; above 0
DOWNLOAD_ATTEMPTS = 5                     # attempts per file, each going on where the last one broke; at least 1
MAX_UNPACKED_GB = 4.0                     # gigabytes an archive may unpack to; more is refused; above 0
REPLACE_DOWNLOADED = False                # move an existing dataset or checkpoint aside and download again

# ---- collecting ----
SOURCE = "yandex"                         # where to search: yandex, inaturalist, gbif, or several as "inaturalist,gbif"
CLASSES = ""                              # part of the list: Latin names or label ranges as "Rosa canina,10-19", "" = all
NAME_RESULTS = 200                        # results taken per name; at least 1
SYNONYM_BELOW = 100                       # results; when a name has fewer, its synonyms (`also`) are searched too, 0 = never; at least 0
SIMILAR_TO = 20                           # first results of a name to search similar photographs of (yandex), 0 = none; at least 0
SIMILAR_RESULTS = 40                      # results taken per search for similar photographs; at least 1
LICENSES = ("cc0", "pd", "cc-by", "cc-by-sa", "cc-by-nc", "cc-by-nc-sa")  # licences taken from inaturalist and gbif; also cc-by-nd, cc-by-nc-nd
KINGDOMS = ("Plantae", "Fungi")           # inaturalist, gbif: kingdoms a name may belong to
AREA = ""                                 # inaturalist, gbif: "crimea" or "west,south,east,north" in degrees, "" = the whole world
PLACE_ID = 0                              # inaturalist: number of one of its places, 0 = anywhere; at least 0
PHOTO_SIZE = "medium"                     # inaturalist: small (240 pixels), medium (500), large (1024), original (at most 2048)
PHOTOS_PER_OBSERVATION = 2                # inaturalist, gbif: photographs taken of one plant, 0 = all; at least 0
HERBARIUM = False                         # gbif: take pressed herbarium sheets too
API_DELAY = 1.0                           # seconds between two questions to inaturalist or gbif, which ask for at most one; at least 0
INATURALIST_URL = "https://api.inaturalist.org/v1"  # address of the interface
GBIF_URL = "https://api.gbif.org/v1"      # address of the interface
YANDEX_URL = "https://yandex.com/images/search"  # address of the search page; yandex.ru asks for captchas more often
IMAGE_SEARCH_SIZE = ""                    # yandex: large, medium, small, wallpaper or exact as 1920x1080, "" = any
IMAGE_SEARCH_ORIENTATION = ""             # yandex: horizontal, vertical, square, "" = any
IMAGE_SEARCH_TYPE = "photo"               # yandex: photo, clipart, lineart, face, demotivator, "" = any
IMAGE_SEARCH_COLOR = ""                   # yandex: color, gray, red, orange, yellow, green, cyan, blue, violet, white, black, "" = any
IMAGE_SEARCH_FORMAT = ""                  # yandex: jpg, png, gifan, "" = any
IMAGE_SEARCH_SITE = ""                    # yandex: only pictures of this site such as plantarium.ru, "" = any
BROWSER = "firefox"                       # yandex: firefox, chrome or chromium
BROWSER_ARGUMENTS = ()                    # further command-line arguments of the browser such as ("--no-sandbox",)
HEADLESS = True                           # yandex: no window; with --no-headless a captcha can be solved by the person
GRID_URL = ""                             # yandex: Selenium Grid to use such as http://grid:4444, "" = a browser of this machine
PAGE_DELAY = (5.0, 10.0)                  # yandex: seconds between two pages, drawn between these; at least 0
PAGE_SECONDS = 30.0                       # yandex: seconds a page may take to show results; above 0
CAPTCHA_SECONDS = 600.0                   # yandex: seconds to wait for a person to solve a captcha in the window; at least 0
THREADS = 32                              # downloads at once; at least 1
HOST_CONNECTIONS = 2                      # downloads at once from one host; at least 1
HOST_DELAY = 0.2                          # seconds between two downloads from one host; at least 0
HOST_GB_PER_HOUR = 4.0                    # gigabytes from one host per hour (inaturalist blocks above 5); above 0
HOST_GB_PER_DAY = 20.0                    # gigabytes from one host per day (inaturalist blocks above 24); above 0
PHOTO_ATTEMPTS = 4                        # attempts per address when it fails in a way that may pass; at least 1
CONNECT_SECONDS = 10.0                    # seconds to connect to a host; above 0
READ_SECONDS = 20.0                       # seconds without a byte before an attempt fails; above 0
PHOTO_SECONDS = 90.0                      # seconds one attempt may take in all; above 0
PHOTO_MB = 20.0                           # megabytes a photograph may have; above 0
PHOTO_MEGAPIXELS = 25.0                   # million pixels a collected photograph may have; larger ones are not decoded (memory: 8 bytes per pixel); above 0
PRIVATE_HOSTS = ()                        # host names that may have private addresses, for tests; all others are refused
CONTACT = ""                              # mail address or page named to every site asked, as their rules wish

# ---- cleaning ----
MIN_SIDE = 256                            # pixels; photographs with a shorter side below this are rejected; at least 1
OUTPUT_SIDE = 256                         # pixels of the shorter side of a cleaned photograph, at most MIN_SIDE; at least 1
JPEG_QUALITY = 92                         # of the cleaned photographs (92: 41 dB, Pillow's usual 75: 37 dB); 1 to 95
MAX_FILE_MB = 100.0                       # megabytes; larger files are rejected without being read; above 0
MAX_MEGAPIXELS = 80.0                     # million pixels; larger pictures are rejected without being decoded; above 0
DECODE_SECONDS = 8.0                      # seconds one file may take to decode (not on Windows, nor on a Dask cluster); above 0
ACCEPTED_MODES = ("RGB",)                 # Pillow modes taken as they are; other modes are rejected ...
CONVERTED_MODES = ()                      # ... except these, converted to RGB, such as ("L", "P", "RGBA", "CMYK")
DUPLICATE_RULE = "checked"                     # which are copies: checked (hash of several views, then a second one), published (average hash, sorted neighbours, 8 bits: for comparison, loses distinct photographs)
HASH = "phash"                            # ImageHash function that finds candidates: phash, dhash, whash or average_hash
HASH_DISTANCE = 12                        # bits of 64; photographs this close on any view are candidates, -1 = only equal files are copies; -1 to 64
CHECK_DISTANCE = 48                       # bits of 256; candidates this close by the second hash are the same, 256 = no second check; 0 to 256
BORDERLINE_DISTANCE = 88                  # bits of 256; candidates up to this are kept and shown in review, at least CHECK_DISTANCE; 0 to 256
DASK_SCHEDULER = ""                       # address of a Dask scheduler such as tcp://host:8786 to clean on its workers, "" = processes here
PROCESSES = 0                             # worker processes for cleaning and labelling, 0 = one per core; at least 0

# ---- review ----
REVIEW_PORT = 8765                        # port of the review page on this machine, 0 = any free one; 0 to 65535
LABEL_FOLDS = 5                           # find_label_errors.py: parts of the training photographs, each judged by what the others teach; at least 2

# ---- labelling ----
TEST_PER_CLASS = 30                       # test photographs per class, never more than a third of a class; at least 1
CHECK = ""                                # folder of a labelled dataset to check for leaks and to give a group column, instead of labelling; "" = off

# ---- data ----
SPLIT_SEED = 0                            # any integer; chooses which photographs become test (in labelling) and validation
IMAGE_SIZE = 224                          # pixels, side of the square the network sees; at least 32
VALIDATION_SHARE = 0.1                    # fraction of each class of train kept for validation, at least one group; in [0, 1)
BALANCE = "none"                          # imbalance: none, oversample (repeat rare classes), sampling (draw classes equally), weights (weigh the loss), logit_adjustment (add the log of the frequencies in the loss)
CROP_SCALE_MIN = 0.35                     # smallest part of the picture's area a training crop may show; in (0, 1]
FLIP = 0.5                                # probability that a training photograph is mirrored; in [0, 1]
TRIVIAL_AUGMENT = False                   # one random colour or shape change per training photograph (TrivialAugmentWide)
COLOR_JITTER = 0.0                        # largest relative change of brightness, contrast and saturation in training; in [0, 1]
ERASING = 0.0                             # probability that a rectangle of a training photograph is blanked; in [0, 1]
MEAN = (0.485, 0.456, 0.406)              # per channel, of pixels in [0, 1]; ImageNet's, as the initial weights expect; in [0, 1]
STD = (0.229, 0.224, 0.225)               # per channel, of pixels in [0, 1]; ImageNet's, as the initial weights expect; above 0

# ---- model ----
MODEL = "mobilenet_v3_large"              # alexnet, convnext_tiny, densenet121, densenet201, resnet18, mobilenet_v3_small, mobilenet_v3_large, plain_cnn
INITIAL_WEIGHTS = "imagenet_v1"           # imagenet_v1 or imagenet_v2 (downloaded by torchvision), a file with a state dict, or none
FREEZE_BACKBONE = False                   # train the new head only; the rest stays bitwise as it was
FREEZE_BATCHNORM = True                   # keep the BatchNorm statistics of the initial weights, by which the head was fitted (not with INITIAL_WEIGHTS none)
BATCHNORM_MOMENTUM = 0.1                  # weight of the newest batch in running statistics (torchvision's 0.01 lags in short runs); in [0, 1]

# ---- training ----
SEED = 0                                  # any integer; head initialisation, order, augmentation, dropout
NUM_EPOCHS = 20                           # passes over the training photographs; 0 = the head alone (LINEAR_PROBE); at least 0
BATCH_SIZE = 90                           # photographs per step; at least 2
LINEAR_PROBE = True                         # before the epochs, fit the head on features of the initial weights (not with INITIAL_WEIGHTS none)
PROBE_VIEWS = 4                            # views per photograph it is fitted on: plain, mirrored, then augmented ones; at least 1
LEARNING_RATE = 1e-3                      # peak learning rate of what starts random, as the head without LINEAR_PROBE; above 0
BACKBONE_LEARNING_RATE = 1e-4             # peak learning rate of the rest: what starts from initial weights or the fitted head; at least 0
LAYER_DECAY = 1.0                         # factor of that rate per layer further below the head; in (0, 1]
WEIGHT_DECAY = 0.02                       # AdamW's, on weight matrices only, not on norms and biases; at least 0
WARMUP_EPOCHS = 1.0                       # epochs of linearly rising learning rate before the cosine decay; at least 0
LABEL_SMOOTHING = 0.0                     # fraction of the target spread over all classes; in [0, 1)
MIXUP = 0.0                               # strength (alpha) of MixUp: batches blended with themselves, 0 = never; at least 0
CUTMIX = 0.0                              # strength (alpha) of CutMix: rectangles pasted within a batch, 0 = never; with both, one of them per batch; at least 0
AVERAGE_EPOCHS = 0                        # last epochs whose weights are averaged over all steps (taken if validation agrees), 0 = none; at least 0
PATIENCE = 0                              # epochs without a better validation loss before stopping early, 0 = never; at least 0
FLIP_TTA = True                      # look at each photograph and its mirror image and average the logits (twice the time); a checkpoint keeps to what it was trained with

# ---- runs ----
RUN = ""                                  # name of the run's folders, "" = model name and a hash of the settings that affect training
RESUME_CHANGED = False                    # go on with a run although its settings have changed
CHECKPOINT = ""                           # checkpoint file to evaluate, "" = that of the newest finished run, else the downloaded one
DEVICE = ""                               # torch device such as cuda:1 or cpu, "" = CUDA, else Apple's MPS, else the CPU
CACHE = True                              # decode the photographs once into CACHE_DIR, not anew in every epoch (same results)
BFLOAT16 = True                           # train in bfloat16 where the device computes it natively (newer GPUs, CPUs with AMX or AVX512-BF16)
COMPILE = True                            # compile the network for training on CUDA devices: a minute or so at the start
NUM_WORKERS = -1                          # processes that read photographs, -1 = one per core (at most 8), 0 = none; at least -1

# ---- evaluation ----
REPORT_PHOTOS = 200                       # mistaken photographs shown in the report, the surest first; each adds about 25 kB; at least 0

# ---- search ----
SEARCH_STUDY = "search"                   # name of the study and of its folders; the same name goes on with it
SEARCH_STORAGE = ""                       # "" = a journal file in the study's folder, or a database such as postgresql+psycopg://user@host/database
SEARCH_TRIALS = 50                        # trials in all, those of earlier starts and of other processes included; at least 1
SEARCH_MODELS = ("alexnet", "convnext_tiny", "densenet121", "densenet201", "resnet18", "mobilenet_v3_small", "mobilenet_v3_large")  # networks to choose from
SEARCH_SETTINGS = ("learning_rate", "backbone_learning_rate", "layer_decay", "weight_decay", "batch_size", "label_smoothing", "crop_scale_min", "color_jitter", "erasing", "trivial_augment", "mixup", "freeze_backbone")  # settings that are searched (also cutmix); the others stay as they are
SEARCH_PRUNER = "halving"                 # stops losing trials early: halving, median (more patient), hyperband (for hundreds of trials), none
SEARCH_RETRIES = 3                        # times a trial is tried again whose process died; at least 0
SEARCH_HEARTBEAT = 60                     # databases: seconds between signs of life of a trial; after twice that without one it is tried again; at least 1

# ---- answering ----
ONNX = ""                                 # predict.py, app.py: ONNX file of export.py to answer with, "" = the checkpoint
TOP = 3                                   # names given per photograph, best first; at least 1
MAX_RISK = 0.2                            # largest calibrated probability of a wrong first name that is not "not sure"; in [0, 1]
HALF = False                              # export.py: float16 inside, half the size
MAX_DROP = 0.005                          # export.py: largest fall of accuracy that float16 may cost; in [0, 1]
CHECK_PHOTOS = ""                         # export.py: photographs to check with (file, folder or pattern), "" = the validation ones
FORMAT = "table"                          # of what predict.py prints: table, csv, json

# ---- pages ----
HOST = "127.0.0.1"                        # address pages are served at; "0.0.0.0" = to the whole network, phones included
PORT = 0                                  # port of that address, 0 = a free one; 0 to 65535
OPEN_BROWSER = True                       # open a page in the browser of this machine, where there is a screen

# ---- app ----
UPLOAD_MB = 25.0                          # megabytes a photograph given to the page may have; above 0
EXAMPLES = 5                              # training photographs shown per class, from DATASET_DIR where it is at hand; at least 0

# ---- packing ----
PACK = "dataset,checkpoint"               # what pack.py packs: dataset, checkpoint or both
PACKED_DIR = ROOT / "data/packed"         # folder of the archives, their cards and sums
PACKED_URL = ""                           # address that folder will have, such as https://example.org/plants, named in the lines to paste
REPLACE_PACKED = False                    # set archives of an earlier run aside where they differ from the new ones

# ---- quickstart ----
QUICKSTART_DIR = ROOT / "data/quickstart"  # everything the quickstart draws, prepares, trains and reports
QUICKSTART_PER_CLASS = 100                # photographs drawn per kind, before the damaged and repeated ones; at least 1
QUICKSTART_OFFLINE = False                # do not look for ImageNet weights, train the small network from scratch

# ---- end of the settings ----
TRAINING_GROUPS = ("classes", "data", "model", "training")  # headings whose settings change the trained weights


def parse(argv, script, description, arguments=()):
    """Return (settings that the script takes, {NAME: value} of those changed); see command_line.parse."""
    return command_line.parse(globals(), argv, script, description, arguments)


def override(argv=None, description=None, arguments=()):
    """Replace the settings of this module by flags and a `--settings` file; of all scripts."""
    s, changed = command_line.parse(globals(), argv, __file__, description, arguments)
    globals().update({name: getattr(s, name.lower()) for name in settings()})
    return {**changed, **{name.upper(): getattr(s, name) for name in arguments[:1]}}


def settings(*groups):
    """Return {NAME: value} of the settings under the named headings (all when none is named), in file order."""
    return {name: globals()[name] for group in groups or GROUPS for name in GROUPS[group]}


def namespace(**changes):
    """Return all settings as attributes in lower case (`s.batch_size`), with `changes` applied."""
    values = {name.lower(): value for name, value in settings().items()}
    unknown = sorted(set(changes) - set(values))
    if unknown:
        raise ValueError(f"unknown setting {unknown[0]}; config.py lists them all")
    return SimpleNamespace(**{**values, **changes})


if __name__ == "__main__":
    for name, value in vars(parse(None, __file__, __doc__)[0]).items():
        print(f"{name:24} {value}")

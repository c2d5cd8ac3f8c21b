"""Every setting, with its unit: edit a value here, or give it as a flag to a script that takes it.

    python train.py --batch_size 32 --num_epochs 5    # flags win over everything
    python train.py --settings best.json              # a JSON file wins over this one
    python config.py --batch_size 32                  # print what the scripts would use

The type, range and choices of every setting are in settings/table.py, the scripts that take it in
settings/scripts.py. A value that is not allowed ends the script with status 2.

Only `main` and `build_*` functions read settings; other functions take arguments, because spawned
worker processes (Windows, macOS) see this file and not the flags.
"""
from pathlib import Path
from types import SimpleNamespace

from settings import command_line
from settings.table import GROUPS

ROOT = Path(__file__).resolve().parent

# ---- classes ----
CLASS_TABLE = ROOT / "data/crimean_plants.csv"  # CSV label,latin,russian,english,also: the one file to change for another flora
LIMIT_CLASSES = 0                         # use only the first N classes of the table, 0 = all; at least 0

# ---- folders ----
COLLECTED_DIR = ROOT / "dataset_preparation/parsing/data"  # found.csv and images/<Latin>/ as collected
CLEANED_DIR = ROOT / "dataset_preparation/cleaning/data"  # cleaned.csv and images/<Latin>/ after cleaning
DATASET_DIR = ROOT / "data/dataset"       # train/, test/ and their *_labels.csv
CHECKPOINTS_DIR = ROOT / "checkpoints"    # one folder per run: best and last checkpoint
RUNS_DIR = ROOT / "runs"                  # one folder per run: TensorBoard events, settings, log, report
CACHE_DIR = ROOT / "data/cache"           # photographs decoded once for training, about 0.28 MB each; may be deleted at any time

# ---- downloads ----
DATASET_URL = "https://gitlab.com/glebtutik/crimean_plants_classification_files/-/raw/main/data/dataset.zip"  # address of the published photographs, about 274 MB; "" = skip
DATASET_SHA256 = ""                       # expected SHA-256 of that archive, 64 hex digits; "" = do not check
CHECKPOINT_URL = "https://gitlab.com/glebtutik/crimean_plants_classification_files/-/raw/main/checkpoints/plants_model_checkpoint.zip"  # address of the published model; "" = skip
CHECKPOINT_SHA256 = ""                    # expected SHA-256 of that archive, 64 hex digits; "" = do not check
DOWNLOAD_TIMEOUT = 30.0                   # seconds without a byte before a download attempt fails; above 0
DOWNLOAD_ATTEMPTS = 5                     # attempts per archive, each resuming where the last one failed; at least 1
MAX_UNPACKED_GB = 4.0                     # gigabytes an archive may unpack to; larger ones are refused; above 0
REPLACE_DOWNLOADED = False                # move an existing dataset or checkpoint aside and download it again

# ---- network ----
PROXY = "environment"                     # http://host:port (or socks5h://) to send all requests through; environment: what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say; none
CA_BUNDLE = ""                            # file of the certificates to trust (PEM), "" = that of REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE or SSL_CERT_FILE, else the package certifi
PATIENCE_MINUTES = 5.0                    # minutes to wait for a site that cannot be reached or answers "too many requests" before its search counts as failed; at least 0
BUSY_SECONDS = 60.0                       # seconds to leave a site alone that answers "too many requests" without saying how long, then twice as long each time; at least 0

# ---- collecting ----
SOURCE = "yandex"                         # sources to search: yandex, inaturalist, gbif, commons, open_data, or several as "inaturalist,gbif"
CLASSES = ""                              # part of the class table: Latin names or label ranges as "Rosa canina,10-19", "" = all
NAME_RESULTS = 200                        # results to collect per name; at least 1
SYNONYM_BELOW = 100                       # search the synonyms (`also`) of a name with fewer results than this, 0 = never; at least 0
SIMILAR_TO = 20                           # yandex: search for photographs similar to the first N results of a name, 0 = none; at least 0
SIMILAR_RESULTS = 40                      # yandex: results to collect per search for similar photographs; at least 1
LICENSES = ("cc0", "pd", "cc-by", "cc-by-sa", "cc-by-nc", "cc-by-nc-sa")  # inaturalist, gbif, commons, open_data, and in labelling: licences to accept; also cc-by-nd, cc-by-nc-nd
KINGDOMS = ("Plantae", "Fungi")           # inaturalist, gbif, open_data: kingdoms in which a name is looked up
AREA = ""                                 # inaturalist, gbif, open_data: "crimea" or "west,south,east,north" in degrees, "" = the whole world
PHOTO_SIZE = "medium"                     # inaturalist, open_data, and through gbif: small (240 pixels), medium (500), large (1024), original (at most 2048); commons: 250, 500, 1280, original
SPREAD_PAGES = 10                         # inaturalist, gbif, commons: pages to read per name besides the first, to choose photographs from that are spread over observers, places, years and seasons, 0 = take what is listed first; at least 0
SPREAD_SEED = 0                           # any integer; decides which pages are read and which of equally good photographs are taken
CULTIVATED = "no"                         # inaturalist, gbif: cultivated plants: no, too, only
PHENOLOGY = ""                            # inaturalist, gbif: only plants annotated as having flowers, fruits, buds or none of them, "" = any
PHOTOS_PER_OBSERVATION = 2                # inaturalist, gbif, open_data: photographs to take from one observation, 0 = all; at least 0
API_DELAY = 1.0                           # inaturalist, gbif, commons: seconds between two requests; the sites ask for at most one per second; at least 0
INATURALIST_URL = "https://api.inaturalist.org/v1"  # address of the API
GBIF_URL = "https://api.gbif.org/v1"      # address of the API
COMMONS_URL = "https://commons.wikimedia.org/w"  # address of the API of Wikimedia Commons, without /api.php
COMMONS_SEARCH = "category"               # commons: how files are found by a name: category (and its direct subcategories), text (of their descriptions)
OPEN_DATA = ""                            # open_data: folder, or address, of iNaturalist's published tables observations, observers, photos and taxa (.csv.gz)
OPEN_DATA_URL = "https://inaturalist-open-data.s3.amazonaws.com"  # address of the photographs of those tables
YANDEX_URL = ("https://yandex.com/images/search", "https://yandex.ru/images/search", "https://yandex.com.tr/images/search")  # front doors: the first is used, the next where it cannot be reached or shows no similar photographs; yandex.ru asks for captchas more often
IMAGE_SEARCH_SIZE = ""                    # yandex: large, medium, small, wallpaper or exact as 1920x1080, "" = any
IMAGE_SEARCH_ORIENTATION = ""             # yandex: horizontal, vertical, square, "" = any
IMAGE_SEARCH_TYPE = "photo"               # yandex: photo, clipart, lineart, face, demotivator, "" = any
IMAGE_SEARCH_COLOR = ""                   # yandex: color, gray, red, orange, yellow, green, cyan, blue, violet, white, black, "" = any
IMAGE_SEARCH_FORMAT = ""                  # yandex: jpg, png, gifan, "" = any
IMAGE_SEARCH_SITE = ""                    # yandex: only pictures from this site, such as plantarium.ru, "" = any
BROWSER = "firefox"                       # yandex: browser to drive: firefox, chrome or chromium
BROWSER_ARGUMENTS = ()                    # yandex: further command-line arguments of the browser, such as ("--no-sandbox",)
HEADLESS = True                           # yandex: run the browser without a window; --no-headless lets you solve captchas
GRID_URL = ""                             # yandex: Selenium Grid to use, such as http://grid:4444, "" = a browser on this machine
PAGE_DELAY = (5.0, 10.0)                  # yandex: seconds between two pages, drawn at random between these limits; at least 0
PAGE_SECONDS = 30.0                       # yandex: seconds to wait for the results of a page; above 0
CAPTCHA_SECONDS = 600.0                   # yandex: seconds to wait for you to solve a captcha in the window; at least 0
THREADS = 32                              # simultaneous downloads; at least 1
HOST_CONNECTIONS = 2                      # simultaneous downloads from one host; at least 1
HOST_DELAY = 0.2                          # seconds between the starts of two downloads from one host; at least 0
HOST_GB_PER_HOUR = 4.0                    # gigabytes to download from one host per hour (iNaturalist blocks above 5); above 0
HOST_GB_PER_DAY = 20.0                    # gigabytes to download from one host per day (iNaturalist blocks above 24); above 0
JOIN = ""                                 # another collected folder, to join into COLLECTED_DIR instead of collecting, "" = none
TRY_AGAIN = ()                            # of earlier runs, ask once more for: refused or failed (addresses), thumbnails (smaller copies), empty or unknown (searches)
PHOTO_ATTEMPTS = 4                        # attempts per address after transient errors; at least 1
CONNECT_SECONDS = 10.0                    # seconds to wait for a connection; above 0
READ_SECONDS = 20.0                       # seconds without a byte before an attempt fails; above 0
PHOTO_SECONDS = 90.0                      # seconds one attempt may take in total; above 0
PHOTO_MB = 20.0                           # megabytes; larger downloads are refused; above 0
PHOTO_MEGAPIXELS = 25.0                   # million pixels; larger photographs are refused without being decoded (8 bytes of memory per pixel, 16 of a WebP); above 0
PRIVATE_HOSTS = ()                        # host names that may resolve to private addresses (for tests); all others are refused
CONTACT = ""                              # mail address or web page sent to every site in the User-Agent, as their rules ask

# ---- cleaning ----
MIN_SIDE = 256                            # pixels; photographs with a shorter side below this are rejected; at least 1
OUTPUT_SIDE = 256                         # pixels on the shorter side of a cleaned photograph, at most MIN_SIDE; at least 1
JPEG_QUALITY = 92                         # of cleaned photographs (92: 41 dB PSNR, Pillow's default 75: 37 dB); 1 to 95
MAX_FILE_MB = 100.0                       # megabytes; larger files are rejected without being read; above 0
MAX_MEGAPIXELS = 80.0                     # million pixels; larger pictures are rejected without being decoded; above 0
DECODE_SECONDS = 8.0                      # seconds of processor time one file may take to decode (no limit on Windows or a Dask cluster); above 0
ACCEPTED_MODES = ("RGB",)                 # Pillow colour modes accepted as they are; others are rejected ...
CONVERTED_MODES = ()                      # ... except these, which are converted to RGB, such as ("L", "P", "RGBA", "CMYK")
HASH_DISTANCE = 12                        # bits of 64 by the perceptual hash; photographs within this distance on any view are candidates, -1 = only exact duplicates are removed; -1 to 64
CHECK_DISTANCE = 48                       # bits of 256; candidates within this distance by the second hash are near-duplicates if their pixels agree; 0 to 256
BORDERLINE_DISTANCE = 88                  # bits of 256; candidates up to this distance are compared pixel by pixel, at least CHECK_DISTANCE; 0 to 256
DASK_SCHEDULER = ""                       # address of a Dask scheduler, such as tcp://host:8786, to clean on its workers, "" = on this machine
PROCESSES = 0                             # worker processes for cleaning and labelling, 0 = one per core; at least 0

# ---- review ----
REVIEW_PORT = 8765                        # port of the review page on this machine, 0 = any free one; 0 to 65535
LABEL_FOLDS = 5                           # find_label_errors.py: number of cross-validation folds; at least 2

# ---- labelling ----
TEST_PER_CLASS = 30                       # test photographs per class, at most a third of a class; at least 1
SERIES_MINUTES = 5                        # minutes; photographs of one class by one camera or author that follow within this time stay on one side, 0 = do not group by time; at least 0
SMALL_CLASSES = "stop"                    # a class of too few groups to be split: stop, or train (it gets no test photographs; of one group, no validation photographs either)
CHECK = ""                                # check this folder of a labelled dataset for data leakage and give it a group column instead of labelling; "" = off
REPAIR = False                            # with CHECK: write label tables without data leakage, whole groups moved to train; the old tables are kept in set_aside

# ---- data ----
SPLIT_SEED = 0                            # any integer; decides which photographs go to test (in labelling) and to validation
IMAGE_SIZE = 0                            # pixels, side of the square image the network sees, 0 = the network's own, 224 for most; 32 to 4096
TRAIN_SIZE = 0                            # pixels, side of the square views in training, 0 = six sevenths of IMAGE_SIZE, 192 for 224 (IMAGE_SIZE below 160, with INITIAL_WEIGHTS none, and for networks of one size); at least 32
VALIDATION_SHARE = 0.1                    # fraction of each class of train held out for validation, at least one group; in [0, 1)
BALANCE = "logit_adjustment"              # class imbalance, by the class mix expected in use: logit_adjustment (equal: adds log class frequencies to the logits in the loss), none (as in train), a CSV table latin,share (the mix it gives); or, for comparison, oversample (repeat rare classes), sampling (draw classes equally), weights (weight the loss)
CROP_SCALE_MIN = 0.08                     # smallest fraction of the image area a training crop may cover; in (0, 1]
FLIP = 0.5                                # probability that a training image is flipped horizontally; in [0, 1]
TRIVIAL_AUGMENT = False                   # apply TrivialAugmentWide to training images: one random colour or geometric operation each
COLOR_JITTER = 0.0                        # largest relative change of brightness, contrast and saturation in training; in [0, 1]
ERASING = 0.0                             # probability that a random rectangle of a training image is erased; in [0, 1]
MEAN = ()                                 # normalisation of pixels in [0, 1] per channel, () = the network's own; in [0, 1]
STD = ()                                  # normalisation of pixels in [0, 1] per channel, () = the network's own; in [0.001, 1000]

# ---- model ----
MODEL = "mobilenet_v3_large"              # alexnet, convnext_tiny, densenet121, densenet201, resnet18, mobilenet_v3_small, mobilenet_v3_large, plain_cnn, or timm:NAME, a network of the package timm with one linear layer as head
INITIAL_WEIGHTS = "imagenet_v1"           # imagenet_v1 or imagenet_v2 (downloaded by torchvision; imagenet_v1 of timm:NAME: what timm publishes), a file with a state dict (of torch.save in any common form, or safetensors), a folder with one <network>.<ending> per network, or none (random)
FREEZE_BACKBONE = False                   # train the new head only and leave all other weights untouched
FREEZE_BATCHNORM = True                   # keep the BatchNorm statistics of the initial weights (no effect with INITIAL_WEIGHTS none)
BATCHNORM_MOMENTUM = 0.1                  # weight of the newest batch in BatchNorm's running statistics (torchvision's 0.01 lags in short runs); in [0, 1]

# ---- training ----
SEED = 0                                  # any integer; seeds head initialisation, sample order, augmentation and dropout
NUM_EPOCHS = 20                           # passes over the training photographs, 0 = the linear probe alone; at least 0
BATCH_SIZE = 0                            # photographs per step, 0 = 90, or fewer for a small training set, so that an epoch has 30 steps, but not below 16; at least 2
LINEAR_PROBE = True                       # fit a linear probe on frozen features before fine-tuning (LP-FT; no effect with INITIAL_WEIGHTS none)
PROBE_VIEWS = 4                           # views per photograph the linear probe is fitted on: plain, flipped, then augmented ones; at least 1
LEARNING_RATE = 1e-3                      # peak learning rate of parameters that start random, such as the head without LINEAR_PROBE; above 0
BACKBONE_LEARNING_RATE = 0.0              # peak learning rate of parameters that start from initial weights or the linear probe, 0 = the network's: 1e-3 for mobilenet_v3_small and timm:tf_efficientnet_lite0, 3e-4 for mobilenet_v3_large, 1e-4 for others; at least 0
LAYER_DECAY = 0.0                         # factor of BACKBONE_LEARNING_RATE per layer away from the head, 0 = the network's: 0.8 for timm:tf_efficientnet_lite0, 1 for others; in [0, 1]
WEIGHT_DECAY = 0.02                       # AdamW's, on weight matrices only, not on norms and biases; at least 0
WARMUP_EPOCHS = 1.0                       # epochs of linear warm-up before the cosine decay of the learning rate; at least 0
LABEL_SMOOTHING = 0.1                     # fraction of the target spread evenly over all classes; in [0, 1)
MIXUP = 0.0                               # alpha of MixUp (whole images are blended within a batch), 0 = off; at least 0
CUTMIX = 0.0                              # alpha of CutMix (rectangles are swapped within a batch), 0 = off; with both, one of the two per batch; at least 0
WISE_FT = True                            # at the end, mix the weights of the last epoch with those of the linear probe where that lowers the validation loss (no effect without LINEAR_PROBE)
PATIENCE = 0                              # early stopping after this many epochs without a lower validation loss, 0 = never; at least 0
TEACHER = ()                              # checkpoint of a trained network that teaches this one on every training view, or several as "a.pth.tar,b.pth.tar", whose mean teaches; () = none
TEACHER_TEMPERATURE = 2.0                 # softens the probabilities that teacher and student are compared by; above 0
TEACHER_WEIGHT = 0.9                      # share of the teacher in the loss, the rest is that of the labels; in (0, 1]
FLIP_TTA = True                           # flip test-time augmentation: average the logits of each image and its mirror image (twice the time); stored in the checkpoint

# ---- runs ----
RUN = ""                                  # name of the run and its folders, "" = model name and a hash of the settings that affect training
RESUME_CHANGED = False                    # resume a run although its settings have changed
CHECKPOINT = ""                           # checkpoint file to use, "" = that of the newest finished run, else the downloaded one
BACKGROUND = ""                           # folder of photographs of other plants of the area and of other things: half of them sharpen "none of these plants", the others measure it; "" = none
DEVICE = ""                               # torch device such as cuda:1 or cpu, "" = CUDA if available, else Apple's MPS, else the CPU
CACHE = True                              # decode photographs once into CACHE_DIR instead of in every epoch (same results, faster)
BFLOAT16 = True                           # train in bfloat16 where the device is faster with it (newer GPUs; CPUs with AMX or AVX512-BF16, but not networks with depthwise convolutions there)
MICRO_BATCH = 0                           # photographs that pass the network at once; the gradients of a batch are added up over several passes (gradient accumulation), so it takes less memory, 0 = the whole batch; at least 0
COMPILE = True                            # compile the network on CUDA devices, which takes about a minute at the start
NUM_WORKERS = -1                          # worker processes that load photographs, -1 = none where a CPU trains from the cache, else one per core (at most 8), 0 = none; at least -1

# ---- evaluation ----
REPORT_PHOTOS = 200                       # misclassified photographs in the report, most confident first; each adds about 25 kB; at least 0
LEARNING_CURVE = 3                        # draws of the learning curve in the report, each with linear probes on an eighth to all of the training photographs, 0 = none; at least 0

# ---- search ----
SEARCH_STUDY = "search"                   # name of the study and its folders; the same name resumes it
SEARCH_STORAGE = ""                       # "" = SQLite file study.db in the study's folder, or a database such as postgresql+psycopg://user@host/database
SEARCH_TRIALS = 50                        # trials in total, finished or pruned, including those of earlier runs and other processes; at least 1
SEARCH_MODELS = ("alexnet", "convnext_tiny", "densenet121", "densenet201", "resnet18", "mobilenet_v3_small", "mobilenet_v3_large")  # networks to choose from, as in MODEL
SEARCH_SETTINGS = ("learning_rate", "backbone_learning_rate", "layer_decay", "weight_decay", "batch_size", "label_smoothing", "crop_scale_min", "color_jitter", "erasing", "trivial_augment", "mixup", "freeze_backbone")  # settings to search (also cutmix); the others keep their values
SEARCH_PRUNER = "halving"                 # stops unpromising trials early: halving (after epochs 1, 3, 9, ...), none
SEARCH_RETRIES = 3                        # times a trial is retried whose process died; at least 0
SEARCH_HEARTBEAT = 15                     # seconds between heartbeats of a running trial; after twice that without one it is retried; at least 1

# ---- prediction ----
ONNX = ""                                 # ONNX file written by export.py to use instead of a checkpoint, "" = the checkpoint
TOP = 3                                   # number of names to show per photograph, best first, on pages not below 5; at least 1
MAX_RISK = 0.2                            # largest share of wrong names among those given; names that would raise it get "not sure"; in [0, 1]
WEB = ""                                  # folder of the page that needs no server: export.py writes it, app.py serves it; "" = none
ONNXRUNTIME_WEB = "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz#d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"  # what runs the network in that page: address of the npm package onnxruntime-web (33 MB), and its SHA-256, or the folder where it is installed
HALF = False                              # export in float16: half the size
MAX_DROP = 0.005                          # largest drop in accuracy that float16 weights may cost, of --half or --web; in [0, 1]
CHECK_PHOTOS = ""                         # photographs to verify the export with (file, folder or pattern), "" = the validation photographs
FORMAT = "table"                          # output format: table, csv, excel (CSV for the Excel of this locale), json
TOGETHER = False                          # the photographs of a folder show one plant and get one answer

# ---- pages ----
HOST = "127.0.0.1"                        # address to serve pages at; "0.0.0.0" (or "::", IPv6 too) = reachable from the whole network, phones included
PORT = 0                                  # port of that address, 0 = any free one; 0 to 65535
OPEN_BROWSER = True                       # open the page in this machine's browser if it has a screen

# ---- app ----
UPLOAD_MB = 25.0                          # megabytes; larger uploads are refused; above 0
EXAMPLES = 5                              # training photographs to show per class, if DATASET_DIR exists, else the picture stored with the network; at least 0
LINK = ""                                 # a word of 6 letters or more, with which the address ends, the same after every start; whoever knows it is let in; "" = a new random token each time
FEEDBACK = False                          # let people say "it is something else": with their consent the photograph goes to COLLECTED_DIR

# ---- packing ----
PACK = "dataset,checkpoint"               # what to pack: dataset, checkpoint or both, separated by a comma
PACKED_DIR = ROOT / "data/packed"         # folder for the archives, their cards and checksums
PACKED_URL = ""                           # address this folder will be published at, such as https://example.org/plants; used in settings.txt
REPLACE_PACKED = False                    # move archives of an earlier run aside if they differ from the new ones

# ---- quickstart ----
QUICKSTART_DIR = ROOT / "data/quickstart"  # folder for everything the quickstart draws, prepares, trains and reports
QUICKSTART_PER_CLASS = 100                # photographs drawn per kind, before damaged and repeated ones are added; at least 1
QUICKSTART_OFFLINE = False                # do not look for ImageNet weights; train the small network from scratch

# ---- end of the settings ----
TRAINING_GROUPS = ("classes", "data", "model", "training")  # headings whose settings change the trained weights


def parse(argv, script, description, arguments=()):
    """Return (the script's settings, {NAME: value} of those given by flag or file)."""
    return command_line.parse(globals(), argv, script, description, arguments)


def check_usage(script, description):
    """Check the arguments of the running script before it imports more."""
    parse(None, script, description)


def settings(*groups):
    """Return {NAME: value} of the settings under these headings (by default all), in file order."""
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

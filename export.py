"""Export a checkpoint to ONNX, to predict without torch, and check it against the checkpoint.

    python export.py                           # the newest finished run, else the downloaded one
    python export.py --checkpoint FILE --half  # half the size; refused if it is less accurate
    python export.py --web FOLDER              # a page that names plants without a server
    checkpoints/<run>/plants_model.onnx: 6.6 MB, same first name on all 54 validation photographs,
    outputs differ by at most 3.3e-06

The graph takes views, uint8 (B, H, W, 3) for any B, and returns float32 (B, K + 1): the logits and,
last, the out-of-distribution score. It includes the normalisation. Its metadata is `ONNX_METADATA`
in evaluation/predictor.py. The export is checked on the validation photographs of `<DATASET_DIR>`,
or on those of `--check_photos`, and written next to the checkpoint only if the check passes.
`python predict.py --onnx FILE` predicts with it.

With --web, FOLDER becomes a static page that answers in the browser as predict.py does and, once
opened by https, works offline. Its weights are stored in float16, which is checked like --half.
"""
import json
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import config

if __name__ == "__main__":
    config.check_usage(__file__, __doc__)  # before imports that take seconds
import numpy as np
import torch

from dataset import read_labels, split_validation
from evaluation.answers import require_finite_outputs
from evaluation.facts import TEXTS, require_facts
from evaluation.predictor import ONNX_FORMAT, ONNX_METADATA, REMEDY, load_onnx, load_pytorch
from predict import find_photos, read_view
from settings.command_line import script_command
from training.checkpoints import load_checkpoint
from utils import InputError, atomic_path, require_file, run, warn
from web.offline_page import halve_weights, require_folder, write_folder
from web.page_facts import NAMES, network_facts, page_facts
from web.runtime import read_runtime

PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # torch's exporter needs onnxscript
TOLERANCE = 1e-3  # of a float32 logit; rounding alone makes differences of 1e-6 to 1e-5
# Of the out-of-distribution score, in standard deviations: if the photographs of a class are nearly
# alike, whitening magnifies rounding errors.
SCORE_TOLERANCE = 2e-2
HALF_SCORE_TOLERANCE = 0.25  # of 95 % of the scores in float16; about 0.03 with MobileNetV3-Large
BATCH = 32  # views predicted at once


def main(argv=None):
    s, given = config.parse(argv, __file__, __doc__)
    s.device = "cpu"
    folder = Path(s.web) if s.web else None
    if not folder and "MAX_RISK" in given:
        warn("--max_risk without effect: an ONNX file has the limits of every risk; pass it to the "
             "script that predicts")
    if folder:
        if s.half:
            warn("--half without effect: --web stores weights in float16 anyway")
        require_folder(folder)
        runtime = read_runtime(s)
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise InputError(f"export.py needs {missing[0]}; run pip install {' '.join(PACKAGES)}")
    predictor = load_pytorch(s)
    paths, labels, kind = find_check_photos(predictor, s)
    print(f"checking on {len(paths):,} {kind}photographs", flush=True)
    expected = predict_outputs(predictor, paths, s)
    require_finite_outputs(expected, predictor.path)
    if folder:
        return export_page(folder, runtime, predictor, (paths, expected, labels), s)
    path = predictor.path.with_name("plants_model_half.onnx" if s.half else "plants_model.onnx")
    with atomic_path(path) as temporary:
        write_onnx(temporary, predictor, s.half)
        outputs = predict_outputs(load_onnx(temporary), paths, s)
        result = (check_half(expected, outputs, labels, s.max_drop) if s.half
                  else check_exact(expected, outputs))
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {result} {len(paths):,} {kind}photographs, "
          f"outputs differ by at most {np.abs(outputs - expected).max():.1e}")


def export_page(folder, runtime, predictor, checked, s):
    """Write the offline page; `checked` is (paths, expected outputs, labels) of the check."""
    paths, expected, labels = checked
    with TemporaryDirectory() as work:
        path = Path(work) / "network.onnx"
        write_onnx(path, predictor, half=False)
        halve_weights(path)
        outputs = predict_outputs(load_onnx(path), paths, s)
        result = check_half(expected, outputs, labels, s.max_drop)
        network = path.read_bytes()
    s.top, s.upload_mb = NAMES, s.max_file_mb
    pictures = [[{**picture, "image": f"data:image/jpeg;base64,{picture['picture']}"}]
                if picture else [] for picture in predictor.pictures]
    facts = page_facts(predictor._replace(network=None), pictures, s)
    facts["network"] = network_facts(predictor, s)
    version, size = write_folder(folder, network, facts, *runtime)
    print(f"{folder}: version {version}, {size / 1e6:.1f} MB compressed, {result} {len(paths):,} "
          f"photographs, outputs differ by at most {np.abs(outputs - expected).max():.1e}")
    print(f"next: {script_command('app.py', '--web', folder)}")


def find_check_photos(predictor, s):
    """Return (paths, labels or None, their kind in words) of the photographs for the check."""
    if s.check_photos:
        paths = list(find_photos([s.check_photos]))
        if not paths:
            raise InputError(f"--check_photos {s.check_photos}: no photographs found; name a file, "
                             "folder or pattern of photographs")
        return paths, None, ""
    table = Path(s.dataset_dir) / "train_labels.csv"
    require_file(table, "pass photographs to check the export on: --check_photos DIR")
    classes = predictor.classes
    trained = load_checkpoint(predictor.path).get("settings") or {}
    split = {name: trained.get(name, getattr(s, name)) for name in ("validation_share",
                                                                    "split_seed")}
    require_facts(split, predictor.path, REMEDY)
    _, validation = split_validation(read_labels(table, classes), classes, *split.values())
    return validation["path"].tolist(), validation["label"].to_numpy(), "validation "


def predict_outputs(predictor, paths, s):
    """Return the outputs (N, K + 1) for photographs; InputError names one that cannot be read."""
    outputs = []
    for start in range(0, len(paths), BATCH):
        views = []
        for path in paths[start:start + BATCH]:
            try:
                views.append(read_view(path, predictor.view, s))
            except (InputError, OSError) as error:
                raise InputError(f"{path}: {error}; remove it from the photographs that the export "
                                 "is checked on") from None
        outputs.append(predictor.outputs(np.stack(views)))
    return np.concatenate(outputs)


# ---- writing ----

def write_onnx(path, predictor, half):
    """Write the network of a predictor with its metadata as ONNX, with `half` in float16."""
    import onnx
    network = predictor.network
    if half:
        network.model.half()
    size = predictor.view.image_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    program = torch.onnx.export(network, (example,), input_names=["views"],
                                output_names=["outputs"], dynamo=True, verbose=False,
                                dynamic_shapes=({0: torch.export.Dim("batch")},))
    graph = program.model_proto
    classes = [{**{key: getattr(plant, key) for key in TEXTS}, **picture}
               for plant, picture in zip(predictor.classes, predictor.pictures, strict=True)]
    facts = {"format": ONNX_FORMAT, "classes": classes, **predictor.view._asdict(),
             "temperature": predictor.temperature, "flip_tta": predictor.flip_tta,
             "out_of_distribution_threshold": predictor.ood_threshold,
             "answers": predictor.answers, "unknown": predictor.unknown}
    onnx.helper.set_model_props(graph, {
        key: json.dumps(facts[key], ensure_ascii=False, allow_nan=False) for key in ONNX_METADATA})
    onnx.save(graph, path)


# ---- checking ----

def check_exact(expected, outputs):
    """Return a phrase for the last line of output; raise InputError unless outputs agree."""
    changed = np.sum(outputs[:, :-1].argmax(1) != expected[:, :-1].argmax(1))
    *logits, score = np.abs(outputs - expected).max(0)
    if changed or not (max(logits) <= TOLERANCE and score <= SCORE_TOLERANCE):
        raise InputError(f"the export differs from the checkpoint: {changed:,} first names differ, "
                         f"logits by up to {max(logits):.1e}, scores by up to {score:.1e}; "
                         "nothing was written; try other versions of torch and onnxruntime")
    return "same first name on all"


def check_half(expected, outputs, labels, max_drop):
    """Return a phrase for the last line of output; raise InputError if accuracy drops too much.

    The limit is the fraction `max_drop`. Without labels, accuracy is agreement with the checkpoint.
    The out-of-distribution score may change by HALF_SCORE_TOLERANCE of its standard deviation, or
    of 1, which that was in training.
    """
    names, before = outputs[:, :-1].argmax(1), expected[:, :-1].argmax(1)
    if not np.isfinite(outputs).all():
        raise InputError("some outputs are too large for float16; nothing was written; export "
                         "without --half")
    moved = np.quantile(np.abs(outputs[:, -1] - expected[:, -1]), 0.95)
    moved /= max(1, expected[:, -1].std())
    if moved > HALF_SCORE_TOLERANCE:
        raise InputError(f"float16 changes the out-of-distribution score by {moved:.1e} standard "
                         f"deviations, more than {HALF_SCORE_TOLERANCE:g}; nothing was written; "
                         "export without --half")
    truth = before if labels is None else labels
    accuracy, accuracy_before = np.mean(names == truth), np.mean(before == truth)
    if not accuracy_before - accuracy <= max_drop:
        raise InputError(f"float16 lowers the accuracy by {100 * (accuracy_before - accuracy):.2f} "
                         f"%, --max_drop allows {100 * max_drop:g} %; nothing was written; export "
                         "without --half")
    return (f"{np.sum(names == before):,} first names the same, accuracy "
            f"{100 * accuracy_before:.2f} % -> {100 * accuracy:.2f} % on")


if __name__ == "__main__":
    run(main)

"""Write a checkpoint as an ONNX file that answers without torch, and check it against the checkpoint on photographs.

    python export.py                                # the newest finished run, else the downloaded checkpoint
    python export.py --checkpoint FILE --half       # half the size; refused where it answers worse
    checkpoints/<run>/plants_model.onnx: 6.6 MB, same first name on all 54 validation photographs, logits differ by ...

The graph takes views, uint8 (B, H, W, 3) for any B, and gives float32 (B, K + 1): the logits and, last, how much each
looks like one of the classes; normalisation is inside. Its metadata holds classes (Latin, Russian, English),
image_size, temperature, threshold and flip_tta, each as JSON. It is checked on the validation photographs of
`<DATASET_DIR>`, or on those that `--check_photos` names, and written beside the checkpoint only if the check holds.
`python predict.py --onnx FILE` answers with it.
"""
import json
from pathlib import Path

import numpy as np
import torch

import config
from dataset import read_labels, split_validation
from predict import find_photos, load_onnx, load_trained, read_view
from training.checkpoints import load_checkpoint
from utils import InputError, PlantClass, atomic_path, run

DIFFERENCE = 1e-3  # largest of a float32 logit; rounding makes 1e-6 to 1e-5


def main(argv=None):
    s, _ = config.parse(argv, __file__, __doc__)
    s.device = "cpu"
    predictor = load_trained(s)
    paths, labels, kind = check_photos(predictor, s)
    print(f"checking on {len(paths):,} {kind} photographs", flush=True)
    expected = answer_all(predictor, paths, s)
    path = predictor.path.with_name(f"plants_model{'_half' * s.half}.onnx")
    with atomic_path(path) as temporary:
        write_onnx(temporary, predictor, s.half)
        outputs = answer_all(load_onnx(temporary), paths, s)
        said = compare(expected, outputs, labels, s)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {said} {len(paths):,} {kind} photographs, logits differ by "
          f"{np.abs(outputs - expected).max():.1e} at most")


def check_photos(predictor, s):
    """Return (paths, labels or None, what they are): the photographs to check with."""
    if s.check_photos:
        paths = list(find_photos([s.check_photos]))
        if not paths:
            raise InputError(f"--check_photos {s.check_photos}: no photograph there")
        return paths, None, "given"
    table = Path(s.dataset_dir) / "train_labels.csv"
    if not table.is_file():
        raise InputError(f"{table} does not exist; name photographs to check the export with: --check_photos DIR")
    classes = [PlantClass(label, *names, ()) for label, names in enumerate(predictor.classes)]
    trained = load_checkpoint(predictor.path).get("settings", {})
    _, val = split_validation(read_labels(table, classes), classes,
                              trained.get("validation_share", s.validation_share),
                              trained.get("split_seed", s.split_seed))
    return val["path"].tolist(), val["label"].to_numpy(), "validation"


def answer_all(predictor, paths, s):
    """Return the outputs (N, K + 1) for photographs; raise InputError naming one that cannot be read."""
    outputs = []
    for start in range(0, len(paths), 32):
        views = []
        for path in paths[start:start + 32]:
            try:
                views.append(read_view(path, predictor.image_size, s))
            except (InputError, OSError) as error:
                raise InputError(f"{path}: {error}; the export is checked on every photograph") from None
        outputs.append(predictor.outputs(np.stack(views)))
    return np.concatenate(outputs)


def write_onnx(path, predictor, half):
    """Write the network of a predictor to `path`, in float16 inside with `half`, with its facts as metadata."""
    try:
        import onnx
        import onnxscript  # noqa: F401 torch's exporter needs it
    except ImportError as error:
        raise InputError(f"export.py needs {error.name}: pip install onnx onnxscript onnxruntime") from None
    network = predictor.network
    if half:
        network.model.half()
    example = torch.zeros(2, predictor.image_size, predictor.image_size, 3, dtype=torch.uint8)
    program = torch.onnx.export(network, (example,), input_names=["views"], output_names=["outputs"], dynamo=True,
                                dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False)
    exported = program.model_proto
    facts = {"classes": predictor.classes, "image_size": predictor.image_size, "temperature": predictor.temperature,
             "threshold": predictor.threshold, "flip_tta": predictor.mirrored}
    onnx.helper.set_model_props(exported, {key: json.dumps(value, ensure_ascii=False) for key, value in facts.items()})
    onnx.save(exported, path)


def compare(expected, outputs, labels, s):
    """Return what to say of the outputs (N, K + 1) of the export beside the checkpoint's; raise InputError if worse.

    In float32 every first name must be the same. In float16 the share of right first names (where there are no labels:
    of the same first names) may fall by `max_drop`.
    """
    names, before = outputs[:, :-1].argmax(1), expected[:, :-1].argmax(1)
    if s.half:
        truth = before if labels is None else labels
        drop = np.mean(before == truth) - np.mean(names == truth)
        if not drop <= s.max_drop:
            raise InputError(f"float16 answers worse: {100 * drop:.2f} % fewer first names right, --max_drop allows "
                             f"{100 * s.max_drop:g} %; nothing was written; export without --half")
        return (f"{np.sum(names == before):,} first names the same, accuracy {100 * np.mean(before == truth):.2f} % -> "
                f"{100 * np.mean(names == truth):.2f} % on")
    largest = np.abs(outputs - expected).max()
    if not (np.array_equal(names, before) and largest <= DIFFERENCE):
        raise InputError(f"the export answers otherwise: {np.sum(names != before):,} first names differ, logits by up "
                         f"to {largest:.1e}; nothing was written; other versions of torch and onnxruntime may help")
    return "same first name on all"


if __name__ == "__main__":
    run(main)

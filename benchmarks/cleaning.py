"""Which near-duplicates are found, and do any cross train and test? Beside imagededup.

    python benchmarks/cleaning.py --photos FLOWERS --same FLOWERS_same_photograph.csv
    figure real_pairs_found 1 fraction target >= 0.96 met

True are the pairs of --same (columns class_a, file_a, class_b, file_b; found by another method than
ours and judged by eye), and edited copies that planted_copies.py makes of photographs in none of
these pairs, each used once. All are first enlarged to 500 pixels on the shorter side, so that even
the smallest crops are large enough. Ours are the scripts themselves: cleaning, then labelling with
three seeds. imagededup (https://github.com/idealo/imagededup) is PHash at its distance of 10 and
CNN at its cosine of 0.9, with the MobileNetV3-Small of --weights. It runs in an environment of its
own, which the first run makes, or with the interpreter of --peers. CPU seconds include child
processes; memory is that of the largest process. Pairs that are true by neither list are written to
wrong_pairs.csv in the work folder, to be judged by eye.
"""
import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.common import ROOT, make_environment, measure, parse, state
from benchmarks.planted_copies import EDITS, save
from dataset_preparation.cleaning.duplicate_pairs import KINDS, NEAR
from dataset_preparation.labeling.groups import join_groups
from utils import progress, read_table, write_table

PREPARATION = ROOT / "dataset_preparation"
SIDE = 500  # pixels of the shorter side before editing
SEEDS = 3
PHASH = """import json, sys
from imagededup.methods import PHash
method = PHash(verbose=False)
codes = method.encode_images(image_dir=sys.argv[1], recursive=True, num_enc_workers=0)
found = method.find_duplicates(encoding_map=codes, max_distance_threshold=10, num_dist_workers=0)
with open(sys.argv[2], "w") as file:
    json.dump([[one, other] for one, others in found.items() for other in others], file)
"""
CNN = """import json, sys
import torch
from imagededup.methods import CNN
from imagededup.utils import CustomModel
from torchvision.models import MobileNet_V3_Small_Weights, mobilenet_v3_small
network = mobilenet_v3_small()
network.load_state_dict(torch.load(sys.argv[3], weights_only=True), strict=False)
network.classifier = torch.nn.Identity()
model = CustomModel(model=network.eval(), name="MobileNetV3-Small",
                    transform=MobileNet_V3_Small_Weights.IMAGENET1K_V1.transforms())
method = CNN(verbose=False, model_config=model)
codes = method.encode_images(image_dir=sys.argv[1], recursive=True, num_enc_workers=0)
found = method.find_duplicates(encoding_map=codes, min_similarity_threshold=0.9,
                               num_sim_workers=0)
with open(sys.argv[2], "w") as file:
    json.dump([[one, other] for one, others in found.items() for other in others], file)
"""


PEERS = {"imagededup PHash": PHASH, "imagededup CNN": CNN}


def main(argv=None):
    flags = parse(__doc__, argv, same="", copies=10, peers="")
    work = flags.work / "cleaning"
    plan = plant(flags.photos, flags.same, work, flags.copies)
    pictures = name_pictures(plan)
    print(f"{len(plan['files'])} photographs, {len(plan['same'])} real pairs, "
          f"{len(plan['planted'])} planted copies", flush=True)
    used, found, crossing, lost = run_ours(work, plan, pictures)
    peers = Path(flags.peers) if flags.peers else make_environment(
        flags.work / "cleaning_peers", "imagededup") / "python"
    for name, code in PEERS.items():
        used[name] = measure(peers, "-c", code, work / "images", work / "found.json",
                             flags.weights)
        found[name] = [pair[::-1] if pair[0] > pair[1] else pair
                       for pair in map(tuple, json.loads((work / "found.json").read_text()))]
    judged = {name: judge(pairs, plan, pictures) for name, pairs in found.items()}
    print_table(used, judged)
    for seed, one in enumerate(crossing):
        print(f"seed {seed}: {len(one['same'])} real pairs and {len(one['planted'])} planted "
              f"copies cross train and test")
    planted = max(len(one["planted"]) for one in crossing) / len(plan["planted"])
    return state([
        ("real_pairs_found", judged["ours"]["real"], "fraction", ">=", 0.96),
        ("real_pairs_crossing", max(len(one["same"]) for one in crossing), "pairs", "<=", 0),
        ("planted_crossing", planted, "fraction", "<=", 0.02),
        ("distinct_removed", lost, "photographs", "<=", 0)])


# ---- photographs ----

def plant(photos, same, work, copies):
    """Write photographs and edited copies to `work`/images/<class>/.

    Returns {"files": [...], "same": [(file, file)], "planted": {copy: (original, kind)}}.
    """
    files = sorted(path.relative_to(photos).as_posix() for path in photos.glob("*/*.*"))
    rows = read_table(Path(same)) if same else []
    pairs = [[f"{row[f'class_{one}']}/{row[f'file_{one}']}" for one in "ab"] for row in rows]
    listed = {file for pair in pairs for file in pair}
    free = [file for file in files if file not in listed]
    random.Random(0).shuffle(free)
    jobs = [(kind, strength) for kind in EDITS for strength in range(3) for _ in range(copies)]
    if len(jobs) > len(free):
        raise SystemExit(f"{len(free)} photographs are in no pair, {len(jobs)} are needed")
    planted = {f"{file.rsplit('.', 1)[0]}_{kind.replace(' ', '-')}_{strength}.jpg": (file, kind)
               for file, (kind, strength) in zip(free, jobs, strict=False)}
    plan = {"files": [*files, *planted], "same": pairs, "planted": planted}
    record = work / "plan.json"
    if not record.exists() or json.loads(record.read_text()) != json.loads(json.dumps(plan)):
        for file in progress(files, len(files), "writing"):
            target = work / "images" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            enlarged(photos / file).save(target, "JPEG", quality=92)
        for i, copy in enumerate(progress(planted, len(planted), "editing")):
            file, kind = planted[copy]
            strength, other = jobs[i][1], enlarged(photos / free[-1 - i])
            edited = EDITS[kind][strength](enlarged(photos / file), other, random.Random(i))
            save(edited, work / "images" / copy, kind, strength)
        names = sorted({file.split("/")[0] for file in files})
        write_table(work / "classes.csv", ("label", "latin", "russian", "english", "also"),
                    [{"label": label, "latin": name} for label, name in enumerate(names)])
        record.write_text(json.dumps(plan))
    return plan


def enlarged(path):
    """Return a photograph, upright, with `SIDE` pixels on its shorter side at least."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image).convert("RGB")
    scale = max(1, SIDE / min(image.size))
    return image.resize((round(image.width * scale), round(image.height * scale)),
                        Image.Resampling.LANCZOS)


def name_pictures(plan):
    """Return {file: name of the picture it shows}: the same for real pairs and planted copies.

    The other half of a collage counts as its picture as well: a collage shows two.
    """
    files = plan["files"]
    place = {file: i for i, file in enumerate(files)}
    pairs = [*plan["same"], *((copy, file) for copy, (file, _) in plan["planted"].items())]
    return dict(zip(files, join_groups(files, [(place[a], place[b]) for a, b in pairs]),
                    strict=True))


# ---- ours ----

def run_ours(work, plan, pictures):
    """Clean and label in new folders; return (used, found, what crosses by seed, number lost)."""
    used, crossing = {}, []
    with TemporaryDirectory(dir=work) as folder:
        common = ("--collected_dir", work, "--cleaned_dir", folder, "--class_table",
                  work / "classes.csv", "--processes", 1)
        used["ours"] = measure(sys.executable, PREPARATION / "cleaning/cleaning.py", *common)
        used["ours, again"] = measure(sys.executable, PREPARATION / "cleaning/cleaning.py", *common)
        rows = read_table(Path(folder) / "cleaned.csv")
        pairs = read_table(Path(folder) / "pairs.csv")
        for seed in range(SEEDS):
            labels = Path(folder) / f"labels{seed}"
            used[f"labelling, seed {seed}"] = measure(
                sys.executable, PREPARATION / "labeling/labeling.py", *common, "--dataset_dir",
                labels, "--split_seed", seed)
            crossing.append(find_crossing(rows, labels, plan))
    file_of = defaultdict(list)
    for row in rows:
        file_of[row["sha256"]].append(row["file"])
    linked = [(a, b, pair["kind"]) for pair in pairs for a in file_of[pair["first"]]
              for b in file_of[pair["second"]]]
    wrong = [{"first": a, "second": b, "kind": kind} for a, b, kind in linked
             if pictures[a] != pictures[b] and not collage_of(a, b, plan)]
    write_table(work / "wrong_pairs.csv", ("first", "second", "kind"), wrong)
    print("pairs of different pictures by these lists: " + ", ".join(
        f"{sum(one['kind'] == kind for one in wrong)} {kind}" for kind in KINDS))
    removed = [(row["file"], row["keeper"], NEAR) for row in rows if row["status"] == "duplicate"]
    left = {pictures[row["file"]] for row in rows if row["status"] in ("kept", "review")}
    merged = {"ours": [(a, b) for a, b, _ in (*linked, *removed)],
              "ours, removed": [(a, b) for a, b, _ in removed]}
    lost = len(set(pictures.values()) - left)
    strange = sum(pictures[a] != pictures[b] for a, b, _ in removed)
    print(f"{len(removed)} removed, of which {strange} for a keeper of another picture; {lost} "
          "pictures are in nothing that is kept")
    return used, merged, crossing, lost + strange


def collage_of(one, other, plan):
    """Return whether a pair joins a collage and a photograph that may be its other half."""
    return any("collage" in plan["planted"].get(file, ("", ""))[1] for file in (one, other))


def find_crossing(rows, labels, plan):
    """Return the real pairs and planted copies that stand in train and test."""
    side_of = {row["sha256"]: side for side in ("train", "test")
               for row in read_table(labels / f"{side}_labels.csv")}
    side = {row["file"]: side_of.get(row["sha256"]) for row in rows}

    def crosses(a, b):
        return side[a] and side[b] and side[a] != side[b]
    return {"same": [pair for pair in plan["same"] if crosses(*pair)],
            "planted": [copy for copy, (file, _) in plan["planted"].items()
                        if crosses(copy, file)]}


# ---- judging ----

def judge(pairs, plan, pictures):
    """Return {"real": share of real pairs found, "kinds": {kind: share}, "wrong": pairs}.

    Found are photographs that pairs connect, also through others; wrong are pairs of different
    pictures, those of a collage and its other half left out.
    """
    files = plan["files"]
    place = {file: i for i, file in enumerate(files)}
    by_name = {file.split("/")[-1]: file for file in files}  # imagededup may leave folders out
    pairs = {tuple(by_name.get(file.split("/")[-1], file) for file in pair) for pair in pairs}
    group = join_groups(files, [(place[a], place[b]) for a, b in pairs])
    together = {file: group[place[file]] for file in files}
    kinds = defaultdict(list)
    for copy, (file, kind) in plan["planted"].items():
        kinds[kind].append(together[copy] == together[file])
    real = [together[a] == together[b] for a, b in plan["same"]]
    wrong = {frozenset(pair) for pair in pairs
             if pictures[pair[0]] != pictures[pair[1]] and not collage_of(*pair, plan)}
    return {"real": sum(real) / max(1, len(real)), "wrong": len(wrong),
            "kinds": {kind: sum(some) / len(some) for kind, some in kinds.items()}}


def print_table(used, judged):
    """Print what each tool found, and what each command used."""
    print(f"{'':20}" + "".join(f"{name:>18}" for name in judged))
    for kind in EDITS:
        print(f"{kind:20}" + "".join(f"{one['kinds'][kind]:18.2f}" for one in judged.values()))
    for what in ("real", "wrong"):
        print(f"{what:20}" + "".join(f"{one[what]:18.4g}" for one in judged.values()))
    for name, one in used.items():
        print(f"{name:20} cpu {one['cpu']:.1f} s, {one['seconds']:.1f} s, {one['mb']:.0f} MB")


if __name__ == "__main__":
    sys.exit(main())

"""Near-duplicates: fingerprints of several views, exact search over all pairs, a second check.

A fingerprint holds two hashes of each of `NUM_VIEWS` views. The first, 64 bits by ImageHash, is
cheap to compare and finds candidates. The second, 256 bits, sees finer and other detail and
decides. The limits were set on 720 photographs of flowers and altered versions of them, with
doubtful pairs looked at by eye; they have not been checked on photographs of another source.
There, all pairs up to 12 and 88 bits apart are the same picture; the closest different pair is 90
bits apart. Not found: photographs turned by 90 degrees without a note in EXIF, and those cropped
at one side. Of those that lack 4 % of their width at the left all are found, half of them as
borderline; of those that lack 8 % a third, as borderline.
"""
from collections import defaultdict

import imagehash
import numpy as np
from PIL import Image
from scipy.fft import dctn

# 64 bits each; what each one sees: https://github.com/JohannesBuchner/imagehash
HASHES = {"phash": imagehash.phash, "dhash": imagehash.dhash, "whash": imagehash.whash,
          "average_hash": imagehash.average_hash}
LABELING_HASH = "phash"  # labelling compares fingerprints by this hash, whatever cleaning used
# Shares cut off each side; together they find near-duplicates cropped or bordered by up to 13 %.
CROPS = (0.03, 0.06, 0.09, 0.12)
NUM_VIEWS = 2 + len(CROPS)
WORDS = 5  # of 64 bits per view: one of the first hash, four of the second


def fingerprint(image, hash_name):
    """Return the (NUM_VIEWS, WORDS) uint64 fingerprint of a PIL image: whole, mirrored, crops.

    The second hash of a view is the sign, against their median, of the 16 x 16 lowest frequencies
    of its cosine transform without the mean of rows and columns, as in PDQ
    (https://github.com/facebook/ThreatExchange, hashing/hashing.pdf).
    """
    grey = image.convert("L")
    if min(grey.size) >= 256:
        grey = grey.reduce(2)
    width, height = grey.size
    boxes = [(0, 0, width, height)]
    boxes += [(width * crop, height * crop, width * (1 - crop), height * (1 - crop))
              for crop in CROPS]
    views = [grey.resize((64, 64), Image.Resampling.LANCZOS, box) for box in boxes]
    views.insert(1, views[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    pixels = np.stack([np.asarray(view, np.float32) for view in views])
    waves = dctn(pixels, axes=(1, 2))[:, 1:17, 1:17].reshape(NUM_VIEWS, 256)
    checks = np.packbits(waves > np.median(waves, axis=1, keepdims=True), axis=1)
    hashes = np.stack([np.packbits(HASHES[hash_name](view).hash) for view in views])
    return np.hstack([hashes, checks]).view(">u8").astype(np.uint64)


def to_hex(one):
    """Return a fingerprint as hexadecimal text."""
    return one.astype(">u8").tobytes().hex()


def from_hex(texts):
    """Return the (N, NUM_VIEWS, WORDS) uint64 fingerprints of N hexadecimal texts."""
    values = np.frombuffer(bytes.fromhex("".join(texts)), ">u8").astype(np.uint64)
    return values.reshape(-1, NUM_VIEWS, WORDS)


def near_pairs(fingerprints, distance, block=(64, 4096)):
    """Return arrays (first, second, bits, check) of all candidate pairs, by comparing every pair.

    `fingerprints` is (N, NUM_VIEWS, WORDS) uint64. Pairs have first < second and are sorted. A
    pair is a candidate when the first hash of one whole picture is within `distance` bits of that
    of any view of the other. `bits` (of 64) and `check` (of 256) are the smallest differences of
    the first and the second hash, whole picture against any view, both ways. Memory beside the
    result: a few bytes per pair of a block.
    """
    hashes = np.ascontiguousarray(fingerprints[:, :, 0].T)  # (NUM_VIEWS, N)
    found = [np.zeros((2, 0), np.int64)]
    for view, others in enumerate(hashes):
        found += hash_matches(hashes[0], others, distance, block, upper=view == 0)
    pairs = np.unique(np.sort(np.concatenate(found, axis=1), axis=0), axis=1)
    first, second = pairs[:, pairs[0] < pairs[1]]
    return first, second, *hash_distances(fingerprints, first, second)


def hash_matches(hashes, others, distance, block, upper):
    """Return a list of (2, M) index arrays where 64-bit hashes differ in at most `distance` bits.

    With `upper`, both are the same (N,) array and blocks below the diagonal are left out.
    """
    rows, columns = block
    # Reused for every block: allocating them anew would take most of the time.
    mixed, bits = np.empty(block, np.uint64), np.empty(block, np.uint8)
    found = []
    for top in range(0, len(hashes), rows):
        some = hashes[top:top + rows, None]
        for left in range(top if upper else 0, len(others), columns):
            rest = others[None, left:left + columns]
            here = np.s_[:some.shape[0], :rest.shape[1]]
            np.bitwise_xor(some, rest, out=mixed[here])
            np.bitwise_count(mixed[here], out=bits[here])
            if bits[here].min() <= distance:
                # np.nonzero on two dimensions takes 20 times as long
                hits = np.flatnonzero(bits[here] <= distance)
                found.append(np.stack(np.divmod(hits, rest.shape[1])) + [[top], [left]])
    return found


def hash_distances(fingerprints, first, second, at_once=4096):
    """Return (bits of 64, bits of 256) of index pairs: whole against any view, the smaller way."""
    bits, check = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    for start in range(0, len(first), at_once):
        batch = np.s_[start:start + at_once]
        one, other = fingerprints[first[batch]], fingerprints[second[batch]]
        counts = [np.bitwise_count(whole[:, :1] ^ views)  # (M, NUM_VIEWS, WORDS)
                  for whole, views in ((one, other), (other, one))]
        bits[batch] = np.minimum(*(count[..., 0].min(1) for count in counts))
        check[batch] = np.minimum(*(count[..., 1:].sum(2, np.int64).min(1) for count in counts))
    return bits, check


def group_near_duplicates(fingerprints, contents, rule, apart):
    """Return (group of each photograph, [(check, bits, i, j) of borderline pairs, closest first]).

    `contents` are the SHA-256; exact duplicates always share a group. `rule` has `hash_distance`,
    `check_distance` and `borderline_distance`. `apart` holds frozensets of two SHA-256 that never
    share a group; to that end the closest pairs are joined first. A group is the index of one of
    its members.
    """
    pairs = [(-1, -1, i, j) for i, j in pair_equal(contents)]
    if rule["hash_distance"] >= 0:
        alike = pair_equal([one.tobytes() for one in fingerprints])
        pairs += [(0, 0, i, j) for i, j in alike]
        # Of equal fingerprints one is compared: many empty pictures would make too many pairs.
        distinct = np.delete(np.arange(len(fingerprints)), [j for _, j in alike])
        candidates = near_pairs(fingerprints[distinct], rule["hash_distance"])
        for i, j, bits, check in zip(*candidates, strict=True):
            if check <= rule["borderline_distance"]:
                pairs.append((int(check), int(bits), int(distinct[i]), int(distinct[j])))
    pairs.sort(key=lambda pair: (*pair[:2], *sorted((contents[pair[2]], contents[pair[3]]))))
    same = [(i, j) for check, _, i, j in pairs if check <= rule["check_distance"]]
    borderline = [pair for pair in pairs if pair[0] > rule["check_distance"]]
    return join_pairs(contents, same, apart), borderline


def group_as_published(fingerprints, contents, classes, distance=8):
    """Return the group of each photograph as the original project formed them, for comparison.

    Within a class, photographs are sorted by the average hash of the whole picture. Each one is
    compared with the last that was not a duplicate only, and is its duplicate within `distance`
    bits. On photographs of real flowers this removes mostly distinct photographs, and leaves
    cropped or brightened duplicates.
    """
    hashes = fingerprints[:, 0, 0]
    groups, last, name = list(range(len(hashes))), None, None
    for i in sorted(groups, key=lambda i: (classes[i], int(hashes[i]), contents[i])):
        if name == classes[i] and int(hashes[i] ^ hashes[last]).bit_count() <= distance:
            groups[i] = last
        else:
            last, name = i, classes[i]
    return groups


def pair_equal(values):
    """Return index pairs that join each value with the first that equals it."""
    first = {}
    return [(first[value], i) for i, value in enumerate(values) if first.setdefault(value, i) != i]


def join_pairs(contents, pairs, apart):
    """Return the group of every photograph: index pairs joined in order, except across `apart`.

    `contents` are the SHA-256, `apart` holds frozensets of two of them. A group is the index of
    one of its members.
    """
    groups = list(range(len(contents)))
    members = {i: [i] for i in groups}
    apart_from = defaultdict(set)
    for pair in apart:
        for one in pair:
            apart_from[one] |= pair - {one}
    barred = {i: set(apart_from.get(content, ())) for i, content in enumerate(contents)}
    inside = {i: {content} for i, content in enumerate(contents)}
    for i, j in pairs:
        small, large = sorted((groups[i], groups[j]), key=lambda group: len(members[group]))
        if small == large or barred[small] & inside[large]:
            continue
        for member in members[small]:
            groups[member] = large
        members[large] += members.pop(small)
        inside[large] |= inside.pop(small)
        barred[large] |= barred.pop(small)
    return groups

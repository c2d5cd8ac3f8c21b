"""Fingerprints of several views of a photograph, and the search over all of them.

A fingerprint consists of two hashes of each of `NUM_VIEWS` views. The first, ImageHash's phash of
64 bits, is cheap to compare and finds candidates. The second, 256 bits, sees finer detail. Together
they find photographs that were re-encoded, resized, re-coloured, mirrored, or cropped or bordered
equally on all sides. Photographs cropped on one side, rotated or pasted into a page are found by
local_features.py. In both cases the pixels decide.
"""
import imagehash
import numpy as np
from PIL import Image
from scipy.fft import dctn

# Shares cut off each side; together they find near-duplicates cropped or bordered by up to 13 %.
CROPS = (0.03, 0.06, 0.09, 0.12)
NUM_VIEWS = 2 + len(CROPS)
AT_ONCE = 4096  # pairs compared at a time
WORDS = 5  # of 64 bits per view: one of the first hash, four of the second


def fingerprint(image):
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
    hashes = np.stack([np.packbits(imagehash.phash(view).hash) for view in views])
    return np.hstack([hashes, checks]).view(">u8").astype(np.uint64)


def to_hex(one):
    """Return a fingerprint as hexadecimal text."""
    return one.astype(">u8").tobytes().hex()


def from_hex(texts):
    """Return the (N, NUM_VIEWS, WORDS) uint64 fingerprints of N hexadecimal texts."""
    values = np.frombuffer(bytes.fromhex("".join(texts)), ">u8").astype(np.uint64)
    return values.reshape(-1, NUM_VIEWS, WORDS)


def pairs_with_leaders(fingerprints, rule, block=4096, rows=64):
    """Return (4, M) int64: first, second, bits, check of candidate pairs by their hashes.

    `fingerprints` is (N, NUM_VIEWS, WORDS) uint64, the best photograph first. In this order, each
    photograph is compared with all earlier leaders, and becomes one unless it is near one. So
    thousands of similar pictures have one pair each, not one for every two of them. A pair is a
    candidate if the first hash of one whole picture is within `hash_distance` bits of that of any
    view of the other and `check`, of 256 bits, is within `borderline_distance`; `bits` (of 64) and
    `check` are the smallest differences of a whole picture to any view, both ways.
    """
    hashes = np.zeros((NUM_VIEWS, len(fingerprints)), np.uint64)  # of the leaders
    leaders, found = np.zeros(0, np.int64), [np.zeros((4, 0), np.int64)]
    for top in range(0, len(fingerprints), rows):
        some = np.ascontiguousarray(fingerprints[top:top + rows, :, 0].T)
        outer = match_views(some, hashes[:, :len(leaders)], rule["hash_distance"], (rows, block))
        inner = match_views(some, some, rule["hash_distance"], (rows, rows))
        inner = np.sort(inner, axis=0)[:, inner[0] != inner[1]]
        pairs = np.concatenate([[leaders[outer[1]], outer[0] + top], inner + top], axis=1)
        first, second = np.unique(pairs, axis=1)
        bits, check = hash_distances(fingerprints, first, second)
        table = np.stack([first, second, bits, check])[:, check <= rule["borderline_distance"]]
        followers = find_followers(table, rule["check_distance"])
        found.append(table[:, ~np.isin(table[0], list(followers))])
        new = np.setdiff1d(np.arange(top, top + some.shape[1]), list(followers))
        hashes[:, len(leaders):len(leaders) + len(new)] = some[:, new - top]
        leaders = np.concatenate([leaders, new])
    return np.concatenate(found, axis=1)


def find_followers(table, check_distance):
    """Return the photographs that are near an earlier one that is not a follower itself."""
    followers = set()
    for first, second, _, check in sorted(table.T.tolist(), key=lambda row: row[1]):
        if check <= check_distance and first not in followers:
            followers.add(second)
    return followers


def match_views(some, others, distance, block):
    """Return (2, M) index pairs whose whole picture is near any view of the other, both ways."""
    found = [np.zeros((2, 0), np.int64)]
    for view in range(NUM_VIEWS):
        found += hash_matches(some[0], others[view], distance, block)
        if view:
            found += hash_matches(some[view], others[0], distance, block)
    return np.concatenate(found, axis=1)


def hash_matches(hashes, others, distance, block):
    """Return a list of (2, M) index arrays of 64-bit hashes within `distance` bits."""
    rows, columns = block
    # Reused for every block, since allocating them would take most of the time.
    mixed, bits = np.empty(block, np.uint64), np.empty(block, np.uint8)
    found = []
    for top in range(0, len(hashes), rows):
        some = hashes[top:top + rows, None]
        for left in range(0, len(others), columns):
            rest = others[None, left:left + columns]
            here = np.s_[:some.shape[0], :rest.shape[1]]
            np.bitwise_xor(some, rest, out=mixed[here])
            np.bitwise_count(mixed[here], out=bits[here])
            if bits[here].min() <= distance:
                # np.nonzero on two dimensions takes 20 times as long
                hits = np.flatnonzero(bits[here] <= distance)
                found.append(np.stack(np.divmod(hits, rest.shape[1])) + [[top], [left]])
    return found


def hash_distances(fingerprints, first, second):
    """Return (bits of 64, bits of 256) of index pairs: the smallest of whole against any view."""
    bits, check = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    for start in range(0, len(first), AT_ONCE):
        batch = np.s_[start:start + AT_ONCE]
        one, other = fingerprints[first[batch]], fingerprints[second[batch]]
        counts = [np.bitwise_count(whole[:, :1] ^ views)  # (M, NUM_VIEWS, WORDS)
                  for whole, views in ((one, other), (other, one))]
        bits[batch] = np.minimum(*(count[..., 0].min(1) for count in counts))
        check[batch] = np.minimum(*(count[..., 1:].sum(2, np.int64).min(1) for count in counts))
    return bits, check


def pair_equal(values):
    """Return index pairs (first equal value, value) of all repeated values."""
    first = {}
    return [(first[value], i) for i, value in enumerate(values) if first.setdefault(value, i) != i]

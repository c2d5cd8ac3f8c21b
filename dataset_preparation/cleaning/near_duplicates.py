"""Which photographs are the same: fingerprints of several views, an exact search over all pairs, a second check.

A fingerprint holds two hashes of each of `NUM_VIEWS` views. The first, 64 bits by ImageHash, is cheap to compare and
finds candidates. The second, 256 bits, sees finer and other detail and decides. The limits were set on 720 photographs
of flowers and altered copies of them, pairs looked at by eye; they are not checked yet on photographs of another
source. There, all that is up to 12 bits and 88 bits apart is the same picture; what differs comes as near as 90 bits.
Missed are copies turned by 90 degrees without a note in EXIF, and those cut at one side: of copies that lack 4 % of
their width at the left all are found, half of them as borderline; of those that lack 8 % a third, as borderline.
"""
from collections import defaultdict

import imagehash
import numpy as np
from PIL import Image
from scipy.fft import dctn

# 64 bits each; what each one sees: https://github.com/JohannesBuchner/imagehash
HASHES = {"phash": imagehash.phash, "dhash": imagehash.dhash, "whash": imagehash.whash,
          "average_hash": imagehash.average_hash}
CROPS = (0.03, 0.06, 0.09, 0.12)  # parts cut off each side; together they find copies cropped or bordered up to 13 %
NUM_VIEWS = 2 + len(CROPS)
WORDS = 5  # of 64 bits per view: one of the hash, four of the check


def fingerprint(image, hash_name):
    """Return the (NUM_VIEWS, WORDS) uint64 fingerprint of a PIL image: whole, mirrored, centre crops.

    The check of a view is the sign, against their median, of the 16 x 16 lowest frequencies of its cosine transform
    without the mean of rows and columns, as in PDQ (https://github.com/facebook/ThreatExchange, hashing/hashing.pdf).
    """
    grey = image.convert("L")
    if min(grey.size) >= 256:
        grey = grey.reduce(2)
    boxes = [(0, 0, *grey.size)] + [(grey.width * part, grey.height * part, grey.width * (1 - part),
                                     grey.height * (1 - part)) for part in CROPS]
    views = [grey.resize((64, 64), Image.Resampling.LANCZOS, box) for box in boxes]
    views.insert(1, views[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    pixels = np.stack([np.asarray(view, np.float32) for view in views])
    waves = dctn(pixels, axes=(1, 2))[:, 1:17, 1:17].reshape(NUM_VIEWS, 256)
    checks = np.packbits(waves > np.median(waves, axis=1, keepdims=True), axis=1)
    hashes = np.stack([np.packbits(HASHES[hash_name](view).hash) for view in views])
    return np.hstack([hashes, checks]).view(">u8").astype(np.uint64)


def to_text(one):
    """Return a fingerprint as hexadecimal text."""
    return one.astype(">u8").tobytes().hex()


def from_texts(texts):
    """Return the (N, NUM_VIEWS, WORDS) uint64 fingerprints of N texts."""
    return np.frombuffer(bytes.fromhex("".join(texts)), ">u8").astype(np.uint64).reshape(-1, NUM_VIEWS, WORDS)


def near_pairs(fingerprints, distance, block=(64, 4096)):
    """Return arrays (first, second, bits, check) of all pairs of alike photographs, exactly, by comparing every pair.

    `fingerprints` is (N, NUM_VIEWS, WORDS) uint64. Pairs have first < second and are sorted; a photograph is alike
    another when the hash of its whole picture is within `distance` bits of any view's of the other. `bits`, of 64, and
    `check`, of 256, are the smallest differences of whole against any view, both ways. Memory beside the result: a
    few bytes per pair of a block.
    """
    hashes = np.ascontiguousarray(fingerprints[:, :, 0].T)  # (V, N)
    found = [np.zeros((2, 0), np.int64)]
    for view, others in enumerate(hashes):
        found += within(hashes[0], others, distance, block, upper=view == 0)
    pairs = np.unique(np.sort(np.concatenate(found, axis=1), axis=0), axis=1)
    first, second = pairs[:, pairs[0] < pairs[1]]
    return first, second, *differences(fingerprints, first, second)


def within(ours, others, distance, block, upper):
    """Return a list of (2, M) index arrays where 64-bit hashes differ in at most `distance` bits.

    With `upper`, both are the same (N,) array and blocks below the diagonal are left out.
    """
    rows, columns = block
    mixed, bits = np.empty(block, np.uint64), np.empty(block, np.uint8)  # reused: fresh memory would cost the most
    found = []
    for top in range(0, len(ours), rows):
        some = ours[top:top + rows, None]
        for left in range(top if upper else 0, len(others), columns):
            rest = others[None, left:left + columns]
            here = np.s_[:some.shape[0], :rest.shape[1]]
            np.bitwise_xor(some, rest, out=mixed[here])
            np.bitwise_count(mixed[here], out=bits[here])
            if bits[here].min() <= distance:
                hits = np.flatnonzero(bits[here] <= distance)  # in two dimensions it takes 20 times as long
                found.append(np.stack(np.divmod(hits, rest.shape[1])) + [[top], [left]])
    return found


def differences(fingerprints, first, second, at_once=4096):
    """Return (bits of 64, bits of 256) of index pairs: whole against any view, the smallest of both ways."""
    bits, check = np.zeros(len(first), np.int64), np.zeros(len(first), np.int64)
    for start in range(0, len(first), at_once):
        part = np.s_[start:start + at_once]
        one, other = fingerprints[first[part]], fingerprints[second[part]]
        counts = [np.bitwise_count(a[:, :1] ^ b) for a, b in ((one, other), (other, one))]  # (M, V, WORDS)
        bits[part] = np.minimum(*(count[..., 0].min(1) for count in counts))
        check[part] = np.minimum(*(count[..., 1:].sum(2, np.int64).min(1) for count in counts))
    return bits, check


def link_copies(fingerprints, contents, rule, apart):
    """Return (group of each photograph, [(check, bits, i, j) of borderline pairs]) by hash and second check.

    `contents` are the SHA-256, of which equal ones always share a group; `rule` has `hash_distance`, `check_distance`
    and `borderline_distance`; `apart` holds frozensets of two SHA-256 that never share a group, for which the closest
    pairs are joined first. A group is the index of one of its members.
    """
    pairs = [(-1, -1, i, j) for i, j in equal_pairs(contents)]
    if rule["hash_distance"] >= 0:
        alike = equal_pairs([one.tobytes() for one in fingerprints])
        pairs += [(0, 0, i, j) for i, j in alike]
        first = np.delete(np.arange(len(fingerprints)), [j for _, j in alike])  # of each look
        for i, j, bits, check in zip(*near_pairs(fingerprints[first], rule["hash_distance"]), strict=True):
            if check <= rule["borderline_distance"]:
                pairs.append((int(check), int(bits), int(first[i]), int(first[j])))
    pairs.sort(key=lambda pair: (*pair[:2], *sorted((contents[pair[2]], contents[pair[3]]))))
    same = [(i, j) for check, _, i, j in pairs if check <= rule["check_distance"]]
    borderline = [pair for pair in pairs if pair[0] > rule["check_distance"]]
    return join_apart(contents, same, apart), borderline


def link_published(fingerprints, contents, classes, distance=8):
    """Return the group of each photograph as the original project found copies, for comparison with it.

    Within a class, photographs are sorted by the average hash of the whole picture; each one is compared only with
    the last that was not a copy and is its copy within `distance` bits. On photographs of real flowers most of what
    this removes are other photographs, and cropped or brightened copies stay.
    """
    hashes = fingerprints[:, 0, 0]
    groups, last, name = list(range(len(hashes))), None, None
    for i in sorted(groups, key=lambda i: (classes[i], int(hashes[i]), contents[i])):
        if name == classes[i] and int(hashes[i] ^ hashes[last]).bit_count() <= distance:
            groups[i] = last
        else:
            last, name = i, classes[i]
    return groups


def equal_pairs(values):
    """Return index pairs that join each value with the first that equals it."""
    first = {}
    return [(first[value], i) for i, value in enumerate(values) if first.setdefault(value, i) != i]


def join_apart(contents, pairs, apart):
    """Return the group of every photograph, joining index pairs in order except where that unites two of `apart`.

    `contents` are the SHA-256, `apart` holds frozensets of two of them. A group is the index of one of its members.
    """
    groups = list(range(len(contents)))
    members = {i: [i] for i in groups}
    enemies = defaultdict(set)
    for pair in apart:
        for one in pair:
            enemies[one] |= pair - {one}
    foes = {i: set(enemies.get(content, ())) for i, content in enumerate(contents)}
    inside = {i: {content} for i, content in enumerate(contents)}
    for i, j in pairs:
        small, large = sorted((groups[i], groups[j]), key=lambda group: len(members[group]))
        if small == large or foes[small] & inside[large]:
            continue
        for member in members[small]:
            groups[member] = large
        members[large] += members.pop(small)
        inside[large] |= inside.pop(small)
        foes[large] |= foes.pop(small)
    return groups

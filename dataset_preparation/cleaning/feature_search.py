"""Search for photographs with common features, among all photographs at once.

Features are sorted by 64 of their bits, eight times by different bits, and compared only with their
neighbours in that order (an LSH forest with sorted arrays; Bawa et al. 2005). Time and memory grow
with the number of photographs, not of pairs, even if many of them are alike.
"""
import numpy as np

from dataset_preparation.cleaning.local_features import MIRROR, mirror_bits

PER_PHOTOGRAPH = 150  # the first features of a photograph, which are compared
NEIGHBOURS = 2  # features compared on each side in every order
WORD_ALIKE, ALIKE = 16, 40  # bits of 64 and of 256 by which two features differ at most
VOTES = 3  # common features of two photographs, all with the same rotation
AT_ONCE = 65_536  # features compared at a time
TURNS = 12  # steps of a full rotation; a vote counts for its step and the next


def find_candidates(owner, bits, angles):
    """Return sorted (M, 2) index pairs of photographs with `VOTES` common features, one rotation.

    For N features, `owner` (N,) is the index of the photograph, ascending, `bits` (N, 4) uint64,
    `angles` (N,) in degrees. Mirrored pictures are found, too. Takes about 80 bytes per feature of
    additional memory.
    """
    found = [np.zeros((3, 0), np.int64)]
    for word in range(bits.shape[1]):
        order = MIRROR[64 * word:64 * (word + 1)]
        mirrored = np.concatenate([mirror_bits(bits[start:start + AT_ONCE], order)[:, 0]
                                   for start in range(0, max(1, len(bits)), AT_ONCE)])
        keys = np.concatenate([bits[:, word], mirrored])
        for _ in range(2):
            found += neighbours(keys, bits, owner)
            keys = keys << np.uint64(32) | keys >> np.uint64(32)
    # Two features that are neighbours in several orders are one vote.
    one, other, flip = np.unique(np.concatenate(found, axis=1), axis=1)
    # The rotation of the second photograph; mirroring reverses the direction of angles.
    turn = np.where(flip, angles[one] + angles[other], angles[other] - angles[one]) % 360
    step = (turn / 360 * TURNS).astype(np.int64) % TURNS
    count = int(owner[-1]) + 1 if len(owner) else 1
    pair = (owner[one].astype(np.int64) * count + owner[other]) * 2 + flip
    votes, number = np.unique(np.concatenate(
        [pair * TURNS + step, pair * TURNS + (step + 1) % TURNS]), return_counts=True)
    pairs = np.unique(votes[number >= VOTES] // TURNS // 2)
    return np.stack(np.divmod(pairs, count), axis=1)


def neighbours(keys, bits, owner):
    """Return [(first feature, second, whether mirrored)] arrays of similar neighbours by key.

    `keys` are those of all features, then those of all mirrored features. The first feature is
    that of the earlier photograph.
    """
    count, found = len(owner), []
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    for gap in range(1, NEIGHBOURS + 1):
        near = np.flatnonzero(np.bitwise_count(keys[gap:] ^ keys[:-gap]) <= WORD_ALIKE)
        for start in range(0, len(near), AT_ONCE):
            some = near[start:start + AT_ONCE]
            found.append(alike_pairs(order[some], order[some + gap], bits, owner, count))
    return found


def alike_pairs(one, other, bits, owner, count):
    """Return (3, M) of `neighbours` for arrays of features, the mirrored ones above `count`."""
    ends = np.sort(np.stack([one, other]), axis=0)
    ends = ends[:, ends[0] < count]  # two mirrored features equal two plain ones
    one, other, flip = ends[0], ends[1] % count, ends[1] >= count
    apart = np.where(flip[:, None], mirror_bits(bits[other]), bits[other]) ^ bits[one]
    alike = (np.bitwise_count(apart).sum(1) <= ALIKE) & (owner[one] != owner[other])
    one, other = np.sort(np.stack([one[alike], other[alike]]), axis=0)
    return np.stack([one, other, flip[alike].astype(np.int64)])

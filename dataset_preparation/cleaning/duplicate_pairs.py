"""Find pairs of photographs that belong together: candidates by hashes and features, then pixels.

Removal is strict, splitting is generous. A pair is one of three kinds:

- near-duplicates: the same picture with nearly the same extent; one of them may be removed;
- borderline pairs: possibly the same picture, or different ones before one background; a person is
  asked, and both stay on one side;
- overlapping pictures: partly the same picture (a crop, a page, half of a collage), or the same
  scene a moment later; both are kept and stay on one side.
"""
from typing import NamedTuple

from dataset_preparation.cleaning.feature_search import PER_PHOTOGRAPH, find_candidates
from dataset_preparation.cleaning.feature_store import compare_stored
from dataset_preparation.cleaning.local_features import NO_MATCH
from dataset_preparation.cleaning.near_duplicates import (
    hash_distances,
    pair_equal,
    pairs_with_leaders,
)
from utils import progress, read_table, write_table

NEAR, BORDERLINE, OVERLAP = "near-duplicates", "borderline pairs", "overlapping pictures"
KINDS = NEAR, BORDERLINE, OVERLAP
PAIRS_TABLE = "pairs.csv"
COLUMNS = ("first", "second",  # SHA-256 of the collected files, the better photograph first
           "kind", "bits", "check",  # differences of the hashes, of 64 and of 256 bits
           "inliers", "alike", "equal", "first_inside", "second_inside", "differs")  # see `Match`

# Chosen on 720 flowers, edited copies of them and 1,700 photographs of shelves taken in series,
# where all doubtful pairs were checked by eye: see benchmarks/cleaning.py. Copies reach 0.6 even
# under a banner over a third of the picture; different photographs that align at all, such as two
# flowers, stay below 0.5, those of a series mostly above.
ALIKE = 0.6
EQUAL = 0.95  # only heavily edited copies stay below; of a series, 2 pairs of 1,700 reach it
INSIDE = 0.9  # share of a photograph that its keeper must show, for it to be removed
MOST = 0.6  # share of the keeper that it must fill: a page is not a keeper of a picture on it
# Share of the picture that may differ in one place: a sticker or a caption, which hide about 2 %.
# Without it, different flowers before one background are near-duplicates: they reach 0.8 in `alike`
# if they fill a tenth of the picture. Copies without an addition stay below 0.01.
DIFFERS = 0.03
# A plant seen from two sides, or a moment later, shares features but fewer pixels. So do different
# photographs under one banner or on one page, but 97 % of these agree less.
ACCORD, SERIES = 15, 0.4
ROUNDS = 3  # to compare photographs whose hashes agree, but not their pixels, with others


class Pair(NamedTuple):
    """Two photographs by index, the better one first, the kind of pair, and the evidence."""

    first: int
    second: int
    kind: str
    bits: int
    check: int
    match: tuple

    def removable(self):
        """Return the (removed, keeper) index pairs that the kind and the extents allow."""
        shares = (self.second, self.first, self.match.second_inside), \
            (self.first, self.second, self.match.first_inside)
        return [(one, other) for one, other, inside in shares
                if self.kind == NEAR and inside >= INSIDE]


def find_kind(match, near, featured):
    """Return the kind of a pair, or "".

    `near`: whether the second hash is within `check_distance`; `featured`: whether both photographs
    have features, which flat pictures lack.
    """
    shares = match.first_inside, match.second_inside
    if match.alike >= ALIKE and max(shares) >= INSIDE and min(shares) >= MOST:
        same = near or match.equal >= EQUAL
        return NEAR if same and match.differs <= DIFFERS else BORDERLINE
    if near and featured:
        return BORDERLINE
    series = match.inliers >= ACCORD and match.alike >= SERIES
    return OVERLAP if match.alike >= ALIKE or series else ""


def find_pairs(contents, fingerprints, rule, store, map_function):
    """Return the `Pair`s among photographs, sorted, the best photograph coming first in all.

    `contents` are their SHA-256, described in the `FeatureStore`; `fingerprints` is (N, NUM_VIEWS,
    WORDS) uint64; `rule` has `hash_distance`, `check_distance` and `borderline_distance`. Equal
    files are near-duplicates; with a hash distance below 0 no others are, which stay borderline.
    """
    equal = pair_equal(contents)
    pairs = [Pair(i, j, NEAR, 0, 0, NO_MATCH._replace(alike=1.0, equal=1.0, first_inside=1.0,
                                                     second_inside=1.0)) for i, j in equal]
    copies = {j for _, j in equal}
    distinct = [i for i in range(len(contents)) if i not in copies]
    search = Search(contents, fingerprints, rule, store, map_function)
    followers, waiting = set(), distinct
    for _ in range(ROUNDS):
        table = pairs_with_leaders(fingerprints[waiting], rule)
        found = search.compare([(waiting[i], waiting[j]) for i, j in table[:2].T.tolist()], True)
        followers |= {pair.second for pair in found if pair.kind == NEAR}
        # These are near a leader by their hashes only, so they may be near each other.
        near = {waiting[j] for _, j, _, check in table.T.tolist()
                if check <= rule["check_distance"]}
        waiting = sorted(near - followers)
        if not waiting:
            break
    leaders = [i for i in distinct if i not in followers]
    candidates = find_candidates(*store.features([contents[i] for i in leaders], PER_PHOTOGRAPH))
    search.compare([(leaders[i], leaders[j]) for i, j in candidates], False)
    return sorted([*pairs, *search.found.values()])


class Search:
    """Compares pairs of photographs, each pair once; the store keeps the results for later runs."""

    def __init__(self, contents, fingerprints, rule, store, map_function):
        self.contents, self.fingerprints, self.rule = contents, fingerprints, rule
        self.store, self.map_function = store, map_function
        self.matches, self.found, self.done = store.matches(), {}, set()

    def compare(self, pairs, same_extent):
        """Compare index pairs not compared before, and return those that belong together."""
        pairs = [pair for pair in dict.fromkeys(pairs) if pair not in self.done]
        self.done.update(pairs)
        # Matches with another `same_extent` do not count: a re-run must give the same result.
        keys = {pair: (self.contents[pair[0]], self.contents[pair[1]], same_extent)
                for pair in pairs}
        new = [(self.store.path, *key) for key in keys.values() if key not in self.matches]
        results = self.map_function(compare_stored, new, crashed=NO_MATCH)
        for count, (job, match) in enumerate(progress(results, len(new), "comparing")):
            self.matches[job[1:]] = match
            self.store.add_match(job[1:], match)
            if count % 1000 == 0:
                self.store.save()
        self.store.save()
        first, second = (list(some) for some in zip(*pairs, strict=True)) if pairs else ([], [])
        apart = hash_distances(self.fingerprints, first, second)
        found = []
        for pair, bits, check in zip(pairs, *(some.tolist() for some in apart), strict=True):
            match = self.matches[keys[pair]]
            near = same_extent and check <= self.rule["check_distance"]
            featured = self.store.with_features.issuperset(self.contents[i] for i in pair)
            kind = find_kind(match, near, featured)
            if kind == NEAR and self.rule["hash_distance"] < 0:
                kind = BORDERLINE
            if kind:
                found.append(Pair(*pair, kind, bits, check, match))
        self.found |= {pair[:2]: pair for pair in found}
        return found


# ---- the table ----

def write_pairs(folder, pairs, contents):
    """Write the table of pairs of photographs by their SHA-256; equal files need no row."""
    write_table(folder / PAIRS_TABLE, COLUMNS, [
        {"first": contents[pair.first], "second": contents[pair.second], "kind": pair.kind,
         "bits": pair.bits, "check": pair.check, **pair.match._asdict()}
        for pair in pairs if contents[pair.first] != contents[pair.second]])


def read_pairs(folder, rows):
    """Return [(kind, i, j)] of the pairs in the table whose photographs are both in `rows`."""
    where = {}
    for i, row in enumerate(rows):
        where.setdefault(row["sha256"], i)
    return [(row["kind"], where[row["first"]], where[row["second"]])
            for row in read_table(folder / PAIRS_TABLE, ("first", "second", "kind"))
            if row["first"] in where and row["second"] in where]

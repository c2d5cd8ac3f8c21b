"""Near-duplicates: fingerprints, the search over all pairs, the second check, the groups."""
import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps

from dataset_preparation.cleaning import near_duplicates as nd
from tests.conftest import draw

RULE = {"hash_distance": 12, "check_distance": 48, "borderline_distance": 88}


def test_hashes_are_imagehash_s():
    image = draw(20, (400, 300))
    thumbnail = image.convert("L").reduce(2).resize((64, 64), Image.Resampling.LANCZOS)
    for name, function in nd.HASHES.items():
        look = nd.fingerprint(image, name)
        assert f"{look[0, 0]:016x}" == str(function(thumbnail)), name
        assert (nd.from_hex([nd.to_hex(look)] * 2) == look).all()
    assert f"{nd.fingerprint(image, 'phash')[1, 0]:016x}" == str(
        imagehash.phash(ImageOps.mirror(thumbnail)))
    whole = int(str(imagehash.phash(image)), 16)  # the thumbnail changes next to nothing
    assert (int(nd.fingerprint(image, "phash")[0, 0]) ^ whole).bit_count() <= 2


def noise(count, seed=0):
    """Return `count` random fingerprints, of which no two are alike."""
    return np.random.default_rng(seed).integers(0, 2**64, (count, nd.NUM_VIEWS, nd.WORDS),
                                                dtype=np.uint64)


def flip(words, bits):
    """Return uint64 words with the first `bits` bits, counted over all words, flipped."""
    flat = words.copy().ravel()
    for bit in range(bits):
        flat[bit // 64] ^= np.uint64(1 << bit % 64)
    return flat.reshape(words.shape)


def test_all_pairs_equal_the_naive_search():
    looks = noise(300)
    for i, j, view, bits, check in ((3, 250, 0, 8, 20), (10, 11, 4, 5, 70), (40, 299, 0, 11, 0),
                                    (7, 200, 1, 10, 256)):
        looks[j, view, 0] = flip(looks[i, :1, 0], bits)[0]
        looks[j, view, 1:] = flip(looks[i, 0, 1:], check)
    naive = {}
    for i in range(300):
        for j in range(i + 1, 300):
            bits = [[(int(a[0, w]) ^ int(b[view, w])).bit_count() for w in range(nd.WORDS)]
                    for view in range(nd.NUM_VIEWS)
                    for a, b in ((looks[i], looks[j]), (looks[j], looks[i]))]
            if min(one[0] for one in bits) <= 10:
                naive[i, j] = min(one[0] for one in bits), min(sum(one[1:]) for one in bits)
    for block in ((7, 11), (64, 4096)):
        i, j, bits, check = nd.near_pairs(looks, 10, block)
        assert dict(zip(zip(i.tolist(), j.tolist(), strict=True),
                        zip(bits.tolist(), check.tolist(), strict=True),
                        strict=True)) == naive
    assert set(naive) == {(3, 250), (10, 11), (7, 200)}
    assert naive[3, 250] == (8, 20)
    assert len(nd.near_pairs(looks, -1)[0]) == len(nd.near_pairs(looks[:0], 10)[0]) == 0


def groups_of(looks, contents, apart=(), **rule):
    groups, borderline = nd.group_near_duplicates(looks, contents, {**RULE, **rule},
                                                  set(map(frozenset, apart)))
    together = {}
    for content, group in zip(contents, groups, strict=True):
        together.setdefault(group, []).append(content)
    return sorted(sorted(some) for some in together.values()), [
        (check, *sorted((contents[i], contents[j]))) for check, _, i, j in borderline]


def test_the_second_check_decides_and_what_is_between_is_borderline():
    looks = noise(6)
    for copy, bits, check in ((1, 12, 48), (2, 4, 49), (3, 4, 88), (4, 4, 89), (5, 13, 0)):
        looks[copy, 0, 0] = flip(looks[0, :1, 0], bits)[0]
        looks[copy, 0, 1:] = np.roll(flip(looks[0, 0, 1:], check), 0)
    # Each closer to the first than to another
    looks[2:, 0, 0] ^= np.array([1, 2, 4, 8], np.uint64) << np.uint64(40)
    groups, borderline = groups_of(looks[[0, 1]], "ab")
    assert (groups, borderline) == ([["a", "b"]], [])
    for copy, expected in ((2, [(49, "a", "b")]), (3, [(88, "a", "b")]), (4, []), (5, [])):
        assert groups_of(looks[[0, copy]], "ab") == ([["a"], ["b"]], expected)
    assert groups_of(looks[[0, 4]], "ab", check_distance=256,
                     borderline_distance=256)[0] == [["a", "b"]]


def test_equal_files_share_a_group_whatever_the_rule_and_equal_looks_with_any_distance():
    looks = noise(5)
    looks[1], looks[3] = looks[0], looks[2]
    assert groups_of(looks, "aabcd")[0] == [["a", "a"], ["b", "c"], ["d"]]
    assert groups_of(looks, "aabcd", hash_distance=-1)[0] == [["a", "a"], ["b"], ["c"], ["d"]]


def test_what_is_not_a_duplicate_is_apart_even_through_others():
    looks = noise(1).repeat(4, axis=0)
    looks[1, 0, 1:], looks[2, 0, 1:] = flip(looks[0, 0, 1:], 10), flip(looks[0, 0, 1:], 30)
    assert groups_of(looks, "abcd")[0] == [["a", "b", "c", "d"]]
    for order in ((0, 1, 2, 3), (3, 2, 1, 0)):
        groups, _ = groups_of(looks[list(order)], ["abcd"[i] for i in order], apart=["ac"])
        assert groups == [["a", "b", "d"], ["c"]]  # each joins what it is closest to


def test_groups_do_not_depend_on_the_order():
    """Chains, borderline pairs, equal files and pairs kept apart, in 20 seeded orders."""
    looks, contents = noise(12).repeat(5, axis=0), [f"{i // 2 if i % 5 < 2 else i:02}"
                                                    for i in range(60)]
    rng = np.random.default_rng(3)
    for look in looks:
        look[:, 0] = flip(look[:1, 0], rng.integers(0, 8))[0]
        look[:, 1:] = flip(look[0, 1:], rng.integers(0, 100))
    # Equal files look the same
    looks = np.stack([looks[contents.index(content)] for content in contents])
    apart = [(contents[i], contents[i + 2]) for i in range(0, 60, 10)]
    wanted = groups_of(looks, contents, apart)
    assert wanted[1] and 12 < len(wanted[0]) < 40
    for _ in range(20):
        order = rng.permutation(60)
        assert groups_of(looks[order], [contents[i] for i in order], apart) == wanted


def test_many_pictures_that_look_alike_need_little_memory():
    looks = noise(1).repeat(20_000, axis=0)
    groups, _ = nd.group_near_duplicates(looks, [str(i) for i in range(20_000)], RULE, set())
    assert len(set(groups)) == 1


def test_the_published_rule_compares_with_the_last_kept_of_the_class_only():
    looks = noise(5)
    looks[:, 0, 0] = [0, 0b11111111, 0b111111111 << 8, 0b1, 0]
    assert nd.group_as_published(looks, "abcde", "XXXXY") == [0, 0, 2, 0, 4]
    # 0 < 1 < 0b11111111 < ...: sorted by hash the copies follow; another class has a chain of its
    # own


@pytest.mark.parametrize("change", [
    lambda image: image.resize((500, 375)), ImageOps.mirror,
    lambda image: ImageOps.expand(image, 24, "white"),
    lambda image: image.crop((80, 60, 720, 540)), lambda image: image.crop((24, 18, 776, 582)),
    lambda image: image.convert("L").convert("RGB"),
    lambda image: image.point(lambda value: min(255, value * 5 // 4))])
def test_changed_copies_are_near_and_others_are_not(change):
    image = draw(31, (800, 600), detail=16)
    looks = np.stack([nd.fingerprint(one, "phash")
                      for one in (image, change(image), draw(32, (800, 600), detail=16))])
    assert groups_of(looks, "abc")[0] == [["a", "b"], ["c"]]

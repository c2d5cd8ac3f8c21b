"""Near-duplicates by hashes: fingerprints, and the search over all of them."""
import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps

from dataset_preparation.cleaning import near_duplicates as nd
from tests.conftest import draw

RULE = {"hash_distance": 12, "check_distance": 48, "borderline_distance": 88}


def test_perceptual_hashes_equal_imagehash_s():
    image = draw(20, (400, 300))
    thumbnail = image.convert("L").reduce(2).resize((64, 64), Image.Resampling.LANCZOS)
    look = nd.fingerprint(image)
    assert f"{look[0, 0]:016x}" == str(imagehash.phash(thumbnail))
    assert (nd.from_hex([nd.to_hex(look)] * 2) == look).all()
    assert f"{look[1, 0]:016x}" == str(imagehash.phash(ImageOps.mirror(thumbnail)))
    whole = int(str(imagehash.phash(image)), 16)  # the thumbnail changes next to nothing
    assert (int(look[0, 0]) ^ whole).bit_count() <= 2


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


@pytest.mark.parametrize("shape", [{"block": 11, "rows": 7}, {}])
def test_distinct_photographs_are_all_compared(shape):
    """Every candidate of a naive search over all pairs is found, with its distances."""
    looks = noise(300)
    for i, j, view, bits, check in ((3, 250, 0, 8, 70), (10, 11, 4, 5, 70), (40, 299, 0, 13, 60),
                                    (7, 200, 1, 10, 89)):
        looks[j, view, 0] = flip(looks[i, :1, 0], bits)[0]
        looks[j, view, 1:] = flip(looks[i, 0, 1:], check)
    naive = {}
    for i in range(300):
        for j in range(i + 1, 300):
            bits = [[(int(a[0, w]) ^ int(b[view, w])).bit_count() for w in range(nd.WORDS)]
                    for view in range(nd.NUM_VIEWS)
                    for a, b in ((looks[i], looks[j]), (looks[j], looks[i]))]
            least = min(one[0] for one in bits), min(sum(one[1:]) for one in bits)
            if least[0] <= 12 and least[1] <= 88:
                naive[i, j] = least
    table = nd.pairs_with_leaders(looks, RULE, **shape)
    assert {(i, j): (bits, check) for i, j, bits, check in table.T.tolist()} == naive
    assert naive == {(3, 250): (8, 70), (10, 11): (5, 70)}
    assert nd.pairs_with_leaders(looks, {**RULE, "hash_distance": -1}).shape == (4, 0)
    assert nd.pairs_with_leaders(looks[:0], RULE).shape == (4, 0)


def pairs_of(looks, rows=64):
    """Return {(i, j): check} of the candidates."""
    table = nd.pairs_with_leaders(looks, RULE, rows=rows)
    return {(i, j): check for i, j, _, check in table.T.tolist()}


def test_a_photograph_near_a_leader_leads_nothing():
    """Of a chain each is 40 bits from the next: the first, third and fifth lead."""
    looks = noise(1).repeat(5, axis=0)
    for i in range(5):
        looks[i, :, 1:] = flip(looks[0, 0, 1:], 40 * i)
    for rows in (2, 64):
        assert pairs_of(looks, rows) == {(0, 1): 40, (0, 2): 80, (2, 3): 40, (2, 4): 80}


def test_of_many_pictures_that_look_alike_each_makes_one_pair():
    """All pairs would be 200 million, of 30 bytes each."""
    table = nd.pairs_with_leaders(noise(1).repeat(20_000, axis=0), RULE)
    assert table.shape == (4, 19_999)
    assert (table[0] == 0).all()


@pytest.mark.parametrize("change", [
    lambda image: image.resize((500, 375)), ImageOps.mirror,
    lambda image: ImageOps.expand(image, 24, "white"),
    lambda image: image.crop((80, 60, 720, 540)), lambda image: image.crop((24, 18, 776, 582)),
    lambda image: image.convert("L").convert("RGB"),
    lambda image: image.point(lambda value: min(255, value * 5 // 4))])
def test_changed_copies_are_near_and_others_are_not(change):
    image = draw(31, (800, 600), detail=16)
    looks = np.stack([nd.fingerprint(one)
                      for one in (image, change(image), draw(32, (800, 600), detail=16))])
    assert [pair for pair, check in pairs_of(looks).items() if check <= 48] == [(0, 1)]

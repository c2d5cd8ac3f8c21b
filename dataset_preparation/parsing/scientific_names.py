"""Scientific names as sites spell them: authors, ranks and hybrid signs."""
import re
import unicodedata
from functools import cache
from itertools import pairwise

from names import plain_name

# Words of scientific names: ranks, as they are usually abbreviated ("": left out), and authors'.
RANKS = {**dict.fromkeys(("subsp", "ssp"), "subsp."), "var": "var.", "subvar": "subvar.",
         **dict.fromkeys(("f", "fo", "forma"), "f."), "nothosubsp": "nothosubsp.",
         "nothovar": "nothovar.", "convar": "convar.",
         **dict.fromkeys(("agg", "aggr", "cv", "s.l", "s.str", "sp", "spp"), "")}
AGGREGATE = re.compile(r"(?i)\b(?:aggr?|s\. ?l|sensu lato)\b")  # several species under one name
OF_AUTHORS = re.compile(
    "ex|et|al|in|de|von|van|der|den|du|la|le|da|di|do|dos|des|del|non|nec|emend|auct|hort|sensu|"
    "zu|ten|ter|bis|fil|lato|stricto")


def words_of_name(name):
    """Return [(word, kind)] of a scientific name without its authors; kinds: name, rank, hybrid.

    Only the first word of a name has a capital; other words with one are authors, unless they are
    the first after the genus and not abbreviated, as in "Rosa Canina".
    """
    name = unicodedata.normalize("NFKD", plain_name(name)).replace("×", " x ")
    name, quote, cultivar = name.partition(" '")  # Rosa 'Peace'
    letters = "".join(letter for letter in name if not unicodedata.combining(letter))
    letters = letters.capitalize() if letters.isupper() else letters
    words = []
    for word in re.sub(r"\([^)]*\)", " ", letters).split():
        names = [index for index, (_, kind) in enumerate(words) if kind == "name"]
        bare = word.strip(".,").lower()
        if bare == "x" and (names or not words):
            words.append(("×", "hybrid"))
        elif not names or words[-1][1] == "hybrid" and word[0].isalpha():
            words.append((word, "name"))
        elif bare in RANKS:
            words += [(RANKS[bare], "rank")] if RANKS[bare] else []
        elif not OF_AUTHORS.fullmatch(bare) and word[1:2] not in ("'", "’") and (
                word[0].islower() or len(names) == 1 and len(word) > 2 and word.isalpha()):
            words.append((word.lower(), "name"))
    words = [word for word, after in pairwise([*words, ("", "")])
             if word[1] != "rank" or after[1] == "name"]  # L. f. is an author
    return words + [(quote.strip() + cultivar, "name")] * bool(cultivar)


@cache
def name_key(name):
    """Return a key that is equal for all spellings of a scientific name.

    It has no authors, rank words and accents; of hybrid signs, only those between two parents.
    """
    return bare_name(name).lower()


def bare_name(name):
    """Return a scientific name in the spelling of `name_key`."""
    words, bare = words_of_name(name), []
    for word, kind in words:
        if kind == "name" or kind == "hybrid" and len(bare) > 1:
            bare.append(word)
    return " ".join(bare)[:1].upper() + " ".join(bare)[1:]


def without_authors(name):
    """Return a scientific name without its authors, with its ranks and hybrid signs."""
    return " ".join(word for word, _ in words_of_name(name))


def taxon_ranks(name):
    """Return iNaturalist's ranks of what a scientific name may stand for."""
    if " " not in name_key(name):
        return ["genus", "genushybrid"]
    return ["species", "subspecies", "variety", "form", "hybrid",
            *(["complex"] if AGGREGATE.search(name) else [])]


def spellings(name):
    """Return the spellings of a scientific name that a site may use, its own first."""
    words, bare, further = words_of_name(name), bare_name(name), []
    full = without_authors(name)
    if re.fullmatch(r"\w+ [\w-]+ [\w-]+", bare) and "rank" not in dict(map(reversed, words)):
        genus, species, below = bare.split()
        further = [f"{genus} {species} {rank} {below}" for rank in ("subsp.", "var.")]
    return list(dict.fromkeys([plain_name(name), full, full.replace("×", "x"), bare, *further]))

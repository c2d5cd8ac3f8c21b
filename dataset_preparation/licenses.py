"""Licences of photographs: parsed from publishers' texts, and compared with an allow-list.

A licence counts only if its whole text is understood: the rest of the text may be the holder's
name, but must not contain a word that could restrict the licence.
"""
import re

# In the order of a code: cc-by-nc-sa, cc-by-nc-nd.
PARTS = (("nc", r"\bnc\b|\b(?:for )?non ?commercial(?:ly)?\b"
                r"(?: (?:uses?|purposes?)\b)?(?: only\b)?"),
         ("sa", r"\bsa\b|\bshare ?alike\b"),
         ("nd", r"\bnd\b|\bno ?deriv(?:ative|ation)?s?(?: works?)?\b"))
ZERO = r"\bcc ?0\b|\bcc zero\b|\bcreative commons zero\b|\bpublic ?domain zero\b"
PUBLIC = r"\bpublic ?domain\b|\bpdm?\b"
ATTRIBUTION = r"\bcc ?by\b|\bcreative commons attribution\b|\bcc attribution\b"
VERSION = r"\b[1-4]\.\d\b"
ADDRESS = (r"(?:https?:?//)?(?:www\.)?creativecommons\.org/(?:licen[cs]es|publicdomain)/"
           r"([a-z+-]+)(?:/(\d\.\d))?[\w./-]*")
UNDERSTOOD = (r"\b(?:attribution|zero|mark|dedication|universal|international|unported|generic|"
              r"legalcode|deed|creative commons|cc|by)\b")
MOST_WORDS = 10  # of a holder's name beside a licence; more are another text
# Words beside a licence that may restrict it, in the languages of publishers.
RESTRICTING = (
    r"\?|\b(?:not?|non|none|except|excluding|unless|otherwise|only|but|without|permission|reserved|"
    r"texts?|metadata|data|audio|sound|video|thumbnails?|previews?|parts?|partly|partial\w*|request|"
    r"ask|contact|commercial\w*|us(?:e[ds]?|age)|pay\w*|fees?|requir\w*|must|restrict\w*|limit\w*|"
    r"prohibit\w*|forbid\w*|personal|educational|private|exclusive\w*|embargo\w*|until|pending|"
    r"expired|withdrawn|revoked|draft|review|see|terms?|conditions?|unknown|various|other|gfdl|"
    r"fair use|nicht|kein\w*|nur|vorbehalten|genehmigung|privat|siehe|bedingungen|sauf|pas|"
    r"interdit\w*|autorisation|réservés|sin|solo|salvo|reservados|не|без|кроме|только|запрещ\w*|"
    r"разреш\w*|защищены|личн\w*|услови\w*|некоммерческ\w*|учебн\w*|научн\w*|all rights|no ?ai|ai|"
    r"trial|(?:for|für|para|pour) (?:research|study|science|teaching|academic\w*|forschung|lehre)|"
    # "not", and what is not commercial, in the languages of GBIF's larger publishers
    r"niet|geen|não|nao|sem|icke|inte|ej|ingen|ikke|uten|uden|nie|bez|není|nem|ei|ilman|"
    r"\w*kom+er[csčzt]\w*|\w+com+er[csz]\w*|comer[csz]\w*)\b"
    r"|非|不|禁|^\W*(?:research|academic\w*|education\w*)\W*$")


def read_license(text):
    """Return a licence as "cc0", "pd" or "cc-by[-nc][-sa|-nd][-4.0]", "" if it is not understood.

    GBIF passes on publishers' texts: a code, a name, an address, or free text
    (https://github.com/gbif/pygbif/issues/79). Of several licences the strictest counts.
    """
    rest = re.sub(ADDRESS, _read_address, text.lower()) if isinstance(text, str) else ""
    rest = re.sub(r"[\s_/:;,()+\[\]-]+", " ", re.sub(r"https?:|www\.", "?", rest))
    rest = re.sub(r"\bsome rights reserved\b|(?<=by) (?:licence|license)\b", " ", rest)
    codes, versions = set(), set(re.findall(VERSION, rest))
    for code, pattern in (("cc0", ZERO), ("cc-by", ATTRIBUTION), ("pd", PUBLIC)):
        rest, count = re.subn(pattern, " ", rest)
        codes |= {code} if count else set()
    parts = []
    for part, pattern in PARTS:
        rest, count = re.subn(pattern, " ", rest)
        parts += [part] if count else []
    rest = re.sub(f"{UNDERSTOOD}|{VERSION}", " ", rest)
    if re.search(RESTRICTING, rest) or len(rest.split()) > MOST_WORDS:
        return ""
    if "cc-by" not in codes:  # the parts have no meaning without it
        return "" if parts or not codes else "cc0" if "cc0" in codes else "pd"
    if "nd" in parts:
        parts = [part for part in parts if part != "sa"]  # there are no derivatives to share alike
    return "-".join(["cc-by", *parts, *(versions if len(versions) == 1 else ())])


def _read_address(match):
    """Return the words of an address at creativecommons.org."""
    names = {"zero": "cc0", "mark": "pd", "publicdomain": "pd"}
    return f" {names.get(match[1], f'cc {match[1]}')} {match[2] or ''} "


def strictest(licenses):
    """Return the strictest combination of these licences, "" if one is unknown."""
    licenses = list(licenses)
    return read_license("; ".join(licenses)) if licenses and all(licenses) else ""


def is_allowed(license_code, allowed):
    """Return whether a licence, of any version, is one of `allowed`."""
    return re.sub(r"-\d\.\d$", "", license_code) in allowed

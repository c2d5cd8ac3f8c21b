"""Licences of photographs: parsed from publishers' texts, and compared with an allow-list.

A licence counts only if its whole text is understood. The rest of the text may only be the holder's
name, and only where it is marked as one: an unknown word beside a code may restrict the licence.
"""
import re
import unicodedata

from names import LOOK_ALIKES, plain_name

# In the order of a code: cc-by-nc-sa, cc-by-nc-nd.
PARTS = (("nc", r"\bnc\b|\b(?:for )?non ?commercial(?:ly)?\b"
                r"(?: (?:uses?|purposes?)\b)?(?: only\b)?"),
         ("sa", r"\bsa\b|\bshare ?alike\b"),
         ("nd", r"\bnd\b|\bno ?deriv(?:at(?:e|ive|ion))?s?\b(?: works?\b)?"))
CODES = (("cc0", r"\bcc ?0\b|\bcc ?zero\b|\bcreative commons zero\b|\bpublic ?domain zero\b"),
         ("cc-by", r"\bcc ?by\b|\b(?:creative commons|cc)[ ,]*attribution\b|"
                   r"\bcreative commons by\b"),
         ("pd", r"\bpublic ?domain\b|\bpdm?\b(?: (?:self|owner|user|old)\b)?"))
VERSION = r"\b[1-4]\.\d\b"
# and the jurisdiction after it, as in "CC BY-SA 3.0 de"
PORTED = (rf"{VERSION}(?: (?:a[rtu]|b[egr]|c[ahlnorz]|d[ek]|e[ces]|f[ir]|g[ert]|h[kru]|i[elnt]|jp|"
          r"k[re]|lu|m[kxy]|n[lz]|p[ehlrt]|r[os]|s[eg]|t[hw]|u[gks]|v[en]|za|scotland|igo|migrated)"
          r"\b)?")
ADDRESS = re.compile(
    r"(?:https?:?//)?(?:www\.)?creativecommons\.org/(?:licen[cs]es|publicdomain)/([a-z+-]+)"
    r"(?:/(\d\.\d))?(?:/(?:igo|(?!nc|nd|sa)[a-z]{2}|scotland|(?:deed|legalcode)[.a-z_-]*|rdf))*/?"
    r"(?![\w/-])", re.IGNORECASE)
UNDERSTOOD = (
    r"\b(?:attribution|mark|dedication|universal|international|unported|generic|legalcode|deed|"
    r"public|creative commons|licen[cs]ed?|lizenz|licencia|licença|this|work|photo|photograph|"
    r"image|is|under|the|(?-i:an?)|or|and|und|oder|some rights reserved|[0-4]|(?:19|20)\d\d|"
    r"(?:version|ver|v)(?=\.? ?§))\b")
MARK = (r"(?:©|(?:(?:photo\w*|foto\w*|images?|pictures?|work|taken|made|uploaded|created|copyright)"
        r"\b ?)*\b(?:by|von|par|author|autor\w*|автор|photographer|creator|credits?|copyright)\b)")
INSTITUTION = (r"\b(?:mus[eéè]\w*|herbari\w*|universit\w*|institut\w*|botani\w*|gardens?|garten|"
               r"jardin|музе\w*|университет\w*|институт\w*)\b")
CONNECTING = re.compile(r"\b(?:for|of|and|für|der|des|und|von|van|de|la|le|du|di|da|del|et)\b|&")
MOST_WORDS = 10  # of a holder's name beside a licence; more are another text
LONGEST = 1000  # characters of a text; licence texts proper and hostile texts are longer
# Words beside a licence that may restrict it, in the languages of publishers.
RESTRICTING = re.compile(
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
    r"|非|不|禁|^\W*(?:research|academic\w*|education\w*)\W*$"
    # and stems of such words
    r"|deriv|deriw|derog|производн|\bno[nt]?[ -]?(?:com|der)|afgele|bearb|bewerk|modif|igual|"
    r"compart|partag|condiv|weiterg|alike|\blucr[oa]|profit|remix|\badapt|vieta|disallow|verbot",
    re.IGNORECASE)
# Capital letters that look like Latin ones; names.LOOK_ALIKES has the small ones.
CAPITALS = str.maketrans("АВЕЅІЈКМНОРСТУХԀΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "ABESIJKMHOPCTYXDABEZHIKMNOPTYX")
JOINED = r"(?!sand\b)(?:cc)?(?:by)?(?:nc|nd|sa)*"  # ccbyncnd
CODE = "§"  # stands for what is understood


def read_license(text):
    """Return a licence as "cc0", "pd" or "cc-by[-nc][-sa|-nd][-4.0]", "" if it is not understood.

    GBIF passes on publishers' texts: a code, a name, an address, or free text
    (https://github.com/gbif/pygbif/issues/79). Of several licences the strictest counts.
    """
    rest = _with_plain_words(text) if isinstance(text, str) and len(text) <= LONGEST else ""
    versions, found = set(re.findall(VERSION, rest)), set()
    for code, pattern in (*CODES, *PARTS):
        rest, count = re.subn(pattern, CODE, rest, flags=re.IGNORECASE)
        found |= {code} if count else set()
    parts = [part for part, _ in PARTS if part in found]
    if not _leaves_names_only(re.sub(PORTED, CODE, rest, flags=re.IGNORECASE)):
        return ""
    if "cc-by" not in found:  # the parts have no meaning without it
        return "" if parts or not found else "cc0" if "cc0" in found else "pd"
    if "nd" in parts:
        parts = [part for part in parts if part != "sa"]  # there are no derivatives to share alike
    return "-".join(["cc-by", *parts, *(versions if len(versions) == 1 else ())])


def _with_plain_words(text):
    """Return a text with letters in one alphabet, words apart, and commas between its clauses."""
    text = plain_name(unicodedata.normalize("NFKC", text))
    text = re.sub(r"https?:|www\.", "?", ADDRESS.sub(_read_address, text), flags=re.IGNORECASE)
    text = re.sub(r"(?i)\(c\)", " © ", text)
    text = re.sub(r"[^\W\d_]+", lambda match: _fold(match[0]), text)
    text = re.sub(r"\b([^\W\d_])\.(?=[^\W\d_]\b)", r"\1", text)  # N.C.
    text = re.sub(r"[;,:()\[\]{}|—\"]| [-–]+ ", " , ", text)
    text = re.sub(r"[_/–-]|(?<=[^\W\d_])(?=\d)|(?<=\d)(?=[^\W\d_])", " ", text)
    text = re.sub(rf"(?i)\b{JOINED}\b", lambda match: re.sub("..", r"\g<0> ", match[0]), text)
    return " ".join(text.split())


def _fold(word):
    """Return a word in Latin letters if it mixes them with look-alikes, or is a code in those."""
    folded = word.translate(CAPITALS).translate(LOOK_ALIKES)
    is_code = re.fullmatch(JOINED, folded, re.IGNORECASE)
    return folded if folded.isascii() and (is_code or re.search("[A-Za-z]", word)) else word


def _read_address(match):
    """Return the words of an address at creativecommons.org."""
    names = {"zero": "cc0", "mark": "pd", "publicdomain": "pd"}
    return f" {names.get(match[1].lower(), f'cc {match[1]}')} {match[2] or ''} , "


def _leaves_names_only(text):
    """Return whether a text, with CODE for its licence, is otherwise only a holder's name.

    A name is marked ("by X"), or in brackets or between commas and written as names are.
    """
    clauses = re.sub(UNDERSTOOD, " ", re.sub(rf"{CODE} ?\.", f"{CODE},", text),
                     flags=re.IGNORECASE).split(",")
    names = [(name.strip(" ."), CODE not in clause)
             for clause in clauses for name in clause.split(CODE)]
    rest = " ".join(re.sub(MARK, " ", name, flags=re.IGNORECASE) for name, _ in names)
    if RESTRICTING.search(rest) or len(rest.split()) > MOST_WORDS:
        return False
    return all(not name or re.match(f"{MARK}|{INSTITUTION}", name, re.IGNORECASE)
               or alone and _looks_like_name(name) for name, alone in names)


def _looks_like_name(text):
    """Return whether a text is written as the name of a person or an institution."""
    words = CONNECTING.sub(" ", text).split()
    return bool(re.search(INSTITUTION, text, re.IGNORECASE)) or len(words) > 1 and all(
        word[0].isupper() for word in words)


def strictest(licenses):
    """Return the strictest combination of these licences, "" if one is unknown."""
    licenses = list(licenses)
    return read_license("; ".join(licenses)) if licenses and all(licenses) else ""


def is_allowed(license_code, allowed):
    """Return whether a licence, of any version, is one of `allowed`."""
    return re.sub(r"-\d\.\d$", "", license_code) in allowed

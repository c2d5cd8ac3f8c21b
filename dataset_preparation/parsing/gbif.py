"""Photographs of occurrences on GBIF (https://techdocs.gbif.org/en/openapi/)."""
import json
import re

from dataset_preparation.parsing.rest_api import (
    RestApi,
    build_options,
    list_under,
    own_words,
    text_of,
)
from dataset_preparation.parsing.safe_download import clean_address
from dataset_preparation.parsing.sources import (
    ResultPage,
    SearchFailed,
    UnknownName,
    read_records,
)

PER_PAGE = 300  # the most that a page may have
LAST_OFFSET = 99_900  # a page from here would go beyond the 100,000th occurrence, GBIF's last


def build_source(web, s):
    """Return the source that the settings describe."""
    return Gbif(web, s.gbif_url, build_options(s), s.herbarium)


def normalise_license(text):
    """Return a licence as "cc0", "pd" or "cc-by[-nc][-sa|-nd][-4.0]", "" if it is not understood.

    GBIF passes on what publishers write: a code, a name, an address, or free text
    (https://github.com/gbif/pygbif/issues/79).
    """
    text = re.sub(r"[\s_/:()+]+", "-", (text or "").lower())
    if "all-rights-reserved" in text:
        return ""
    if re.search(r"cc-?0|publicdomain-zero|cc-zero", text):
        return "cc0"
    if re.search(r"publicdomain-mark|^public-domain$|^pd$|^pdm$", text):
        return "pd"
    text = re.sub(r"creative-?commons\.org-licenses|creative-commons", "cc", text)
    for word, short in (("attribution", "by"), ("non-?commercial", "nc"), ("share-?alike", "sa"),
                        ("no-?deriv(?:ative)?s?(?:-works)?", "nd")):
        text = re.sub(word, short, text)
    match = re.search(r"cc-(by(?:-(?:nc|sa|nd))*)(?:-(?:legalcode-)?v?(\d\.\d))?(?!\w)", text)
    return "-".join(filter(None, ("cc", match[1], match[2]))) if match else ""


class Gbif(RestApi):
    """Yields photographs with their provenance; `sources.Source` says what a source must have."""

    per_page, limits = PER_PAGE, "slowed down by GBIF where much is asked"

    def __init__(self, web, url, options, herbarium):
        kinds = ["HUMAN_OBSERVATION", "PRESERVED_SPECIMEN"] if herbarium else ["HUMAN_OBSERVATION"]
        filters = {"basisOfRecord": kinds}
        if options.area:
            filters["geometry"] = polygon(*options.area)
        super().__init__(web, url, filters, options)
        self.terms["basisOfRecord"] = ",".join(kinds)

    def search(self, name, state=None, earlier=()):
        """Yield the pages of a name; `state` is [taxon, offset of the next page]."""
        taxon, first = state or (self._taxon(name), 0)
        for offset in range(first, LAST_OFFSET, PER_PAGE):
            records, page = self.records(
                "occurrence/search", taxonKey=taxon, mediaType="StillImage",
                occurrenceStatus="PRESENT", limit=PER_PAGE, offset=offset, **self.filters)
            passed_over = {}
            results = read_records(records, lambda one, passed=passed_over:
                                   self._photos(one, passed), passed_over)
            is_end = page.get("endOfRecords", len(records) < PER_PAGE)
            yield ResultPage(results, None if is_end else [taxon, offset + PER_PAGE], passed_over)

    def _photos(self, occurrence, passed_over):
        """Return the photographs of an occurrence that have an allowed licence, as results."""
        pictures = list_under(occurrence, "media")
        name = text_of(occurrence.get("species")) or text_of(occurrence.get("scientificName"))
        page = (f"https://www.gbif.org/occurrence/{occurrence['key']}"
                if occurrence.get("key") else "")

        def read(media):
            # the licence of the record does not hold for its media, which may have a stricter one
            code = normalise_license(text_of(media.get("license")))
            wanted = re.sub(r"-\d\.\d$", "", code) in self.options.licenses  # any version
            if wanted and media.get("type") == "StillImage" and media.get("identifier"):
                authors = (text_of(media.get(key))
                           for key in ("creator", "rightsHolder", "publisher"))
                where = text_of(media.get("references")) or page
                yield {"url": clean_address(media["identifier"]), "license": code,
                       "page": clean_address(where) if where else "",
                       "title": text_of(media.get("title")) or name,
                       "author": next(filter(None, authors), "")}
        allowed = read_records(pictures, read, passed_over)
        return allowed[:self.options.per_observation or None]

    def _taxon(self, name):
        """Return the key of the species or genus of a name, by GBIF's own matching.

        A synonym leads to the accepted name and a misspelt name to the nearest, both noted. A match
        at a higher rank (the genus of an unknown species) would bring other plants: UnknownName.
        """
        rank = "SPECIES" if " " in name else "GENUS"
        match = self._best_match(name, rank)
        key = match.get("acceptedUsageKey", match["usageKey"])
        notes = []
        if match["matchType"] == "FUZZY":
            notes.append(f"read as {match['canonicalName']}")
        if key != match["usageKey"]:
            accepted = match.get(match["rank"].lower(), "the accepted name")
            notes.append(f"synonym, searched as {accepted}")
        self.note = "; ".join(notes)
        return key

    def _best_match(self, name, rank):
        """Return GBIF's best match of a name in one of the kingdoms; raises UnknownName."""
        matches, higher = [], ""
        for kingdom in self.options.kingdoms:
            match = self.get("species/match", name=name, kingdom=kingdom, rank=rank)
            if "matchType" not in match:
                raise SearchFailed(f"no match but {own_words(json.dumps(match))!r}")
            kind = match["matchType"]
            if match.get("kingdom") != kingdom:
                continue
            if kind in ("EXACT", "FUZZY") and (match["rank"] == "GENUS") == (rank == "GENUS"):
                matches.append(match)
            elif kind == "HIGHERRANK":
                higher = f"; only the {match['rank'].lower()} {match['canonicalName']} matches"
        if not matches:
            raise UnknownName(f"GBIF does not know it{higher}")
        return min(matches, key=lambda match: (
            match["matchType"] != "EXACT", -match["confidence"], match["usageKey"]))


def polygon(west, south, east, north):
    """Return an area as well-known text, its corners anticlockwise as GBIF wants them."""
    corners = ((west, south), (east, south), (east, north), (west, north), (west, south))
    return f"POLYGON(({','.join(f'{x:g} {y:g}' for x, y in corners)}))"

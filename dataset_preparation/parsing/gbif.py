"""Photographs of occurrences on GBIF (https://techdocs.gbif.org/en/openapi/)."""
import re

from dataset_preparation.parsing.parsing_utils import UnknownName
from dataset_preparation.parsing.rest_api import RestApi, build_options
from dataset_preparation.parsing.safe_download import clean_address

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
    """Yields photographs with their provenance; `parsing.SOURCES` says what a source must have."""

    def __init__(self, web, url, options, herbarium):
        kinds = ["HUMAN_OBSERVATION", "PRESERVED_SPECIMEN"] if herbarium else ["HUMAN_OBSERVATION"]
        filters = {"basisOfRecord": kinds}
        if options.area:
            filters["geometry"] = polygon(*options.area)
        super().__init__(web, url, filters, options)
        self.terms["basisOfRecord"] = ",".join(kinds)

    def search(self, name):
        """Yield the photographs of a name."""
        taxon = self._taxon(name)
        for offset in range(0, LAST_OFFSET, PER_PAGE):
            page = self.get("occurrence/search", taxonKey=taxon, mediaType="StillImage",
                            occurrenceStatus="PRESENT", limit=PER_PAGE, offset=offset,
                            **self.filters)
            for occurrence in page["results"]:
                yield from self._photos(occurrence)
            if page["endOfRecords"]:
                return

    def _photos(self, occurrence):
        """Yield the photographs of an occurrence that have an allowed licence, as results."""
        allowed = []
        for media in occurrence.get("media", ()):
            # the licence of the record does not hold for its media, which may have a stricter one
            license_code = normalise_license(media.get("license"))
            wanted = re.sub(r"-\d\.\d$", "", license_code) in self.options.licenses  # any version
            if wanted and media.get("type") == "StillImage" and media.get("identifier"):
                allowed.append((media, license_code))
        name = occurrence.get("species") or occurrence.get("scientificName", "")
        for media, license_code in allowed[:self.options.per_observation or None]:
            page = media.get("references")
            author = media.get("creator") or media.get("rightsHolder")
            yield {"url": clean_address(media["identifier"]), "license": license_code,
                   "page": clean_address(
                       page or f"https://www.gbif.org/occurrence/{occurrence['key']}"),
                   "title": media.get("title") or name,
                   "author": author or media.get("publisher", "")}

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

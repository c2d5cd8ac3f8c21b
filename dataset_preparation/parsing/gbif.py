"""Photographs of occurrences on GBIF (https://techdocs.gbif.org/en/openapi/)."""
import re

import config
from dataset_preparation.parsing.parsing_utils import UnknownName
from dataset_preparation.parsing.rest_api import OpenInterface, build_options
from dataset_preparation.parsing.safe_download import clean_address

PER_PAGE = 300  # the most they give
LAST = 99_900  # a page that begins here would go beyond the 100,000th occurrence, the last they give


def build_source(web):
    """Return the source as the settings describe it."""
    return Gbif(web, config.GBIF_URL, herbarium=config.HERBARIUM, **build_options())


def normalise_license(text):
    """Return a licence as "cc0", "pd" or "cc-by[-nc][-sa|-nd][-4.0]", read from a code, a name or an address.

    GBIF passes on what publishers wrote (https://github.com/gbif/pygbif/issues/79); what is not understood is "".
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


class Gbif(OpenInterface):
    """Yields photographs with their pedigree; see `parsing.SOURCES` for what a source must offer."""

    def __init__(self, web, url, area, herbarium, **options):
        filters = {"basisOfRecord": ["HUMAN_OBSERVATION", "PRESERVED_SPECIMEN"][:1 + herbarium]}
        if area:
            west, south, east, north = area
            corners = ((west, south), (east, south), (east, north), (west, north), (west, south))  # anticlockwise
            filters["geometry"] = f"POLYGON(({','.join(f'{x:g} {y:g}' for x, y in corners)}))"
        super().__init__(web, url, filters, **options)
        self.terms["basisOfRecord"] = ",".join(filters["basisOfRecord"])

    def search(self, name):
        """Yield the photographs of a name."""
        taxon = self._taxon(name)
        for offset in range(0, LAST, PER_PAGE):
            answer = self.ask("occurrence/search", taxonKey=taxon, mediaType="StillImage",
                              occurrenceStatus="PRESENT", limit=PER_PAGE, offset=offset, **self.filters)
            for occurrence in answer["results"]:
                yield from self._photos(occurrence)
            if answer["endOfRecords"]:
                return

    def _photos(self, occurrence):
        """Yield the photographs of an occurrence whose own licence allows it, as found rows."""
        allowed = []
        for media in occurrence.get("media", ()):
            # the record's licence does not speak for its pictures, which may be kept more strictly
            license_code = normalise_license(media.get("license"))
            wanted = re.sub(r"-\d\.\d$", "", license_code) in self.licenses  # of any version
            if wanted and media.get("type") == "StillImage" and media.get("identifier"):
                allowed.append((media, license_code))
        for media, license_code in allowed[:self.per_observation or None]:
            yield {"url": clean_address(media["identifier"]), "license": license_code,
                   "page": clean_address(media.get("references") or f"https://www.gbif.org/occurrence/{occurrence['key']}"),
                   "title": media.get("title") or occurrence.get("species") or occurrence.get("scientificName", ""),
                   "author": media.get("creator") or media.get("rightsHolder") or media.get("publisher", "")}

    def _taxon(self, name):
        """Return the key of the species or genus of a name, in one of the kingdoms, by GBIF's own matching.

        A synonym leads to the accepted name and a misspelt name to the nearest, both noted; a match at a higher rank
        (the genus of an unknown species) would bring other plants and is refused.
        """
        rank, nearest = "SPECIES" if " " in name else "GENUS", []
        for kingdom in self.kingdoms:
            match = self.ask("species/match", name=name, kingdom=kingdom, rank=rank)
            known = match["matchType"] in ("EXACT", "FUZZY") and match.get("kingdom") == kingdom
            if known and (match["rank"] == "GENUS") == (rank == "GENUS"):
                nearest.append((match["matchType"] != "EXACT", -match["confidence"], match["usageKey"], match))
            elif match["matchType"] == "HIGHERRANK" and match.get("kingdom") == kingdom:
                self.note = f"only the {match['rank'].lower()} {match['canonicalName']} matches"
        if not nearest:
            raise UnknownName(f"GBIF does not know it{self.note and f'; {self.note}'}")
        match = min(nearest)[3]
        notes = [f"read as {match['canonicalName']}"] if match["matchType"] == "FUZZY" else []
        if match.get("acceptedUsageKey", match["usageKey"]) != match["usageKey"]:
            notes.append(f"synonym, searched as {match.get(match['rank'].lower(), 'the accepted name')}")
        self.note = "; ".join(notes)
        return match.get("acceptedUsageKey", match["usageKey"])

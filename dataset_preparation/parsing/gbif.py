"""Photographs of occurrences on GBIF (https://techdocs.gbif.org/en/openapi/)."""
import json
import re

from dataset_preparation.parsing.addresses import at_size, clean_address
from dataset_preparation.parsing.rest_api import Answer, RestApi, own_words
from dataset_preparation.parsing.scientific_names import name_key
from dataset_preparation.parsing.source_settings import build_options
from dataset_preparation.parsing.sources import (
    SearchFailed,
    UnknownName,
    dig,
    list_under,
    read_records,
    text_of,
)

PER_PAGE = 300  # the most that a page may have
LAST_OFFSET = 99_900  # a page from here would go beyond the 100,000th occurrence, GBIF's last
CHECKLIST = "7ddf754f-d193-4cc9-b351-99906754a03b"  # taxonomy: the Catalogue of Life (extended)
INATURALIST = "50c9509d-22c7-4a22-a47d-8c48425ef4a7"  # its dataset
INATURALIST_PAGE = r"https?://www\.inaturalist\.org/(?:photos|observations)/\d+"
CULTIVATED = re.compile(r"(?i)cultivat|captiv|managed|garden")
# In the record's own words: "flowering", "flowers|fruits or seeds", "no flowers or fruits"
PHENOLOGY = {"flowers": r"(?i)^(?!.*\bno\b).*\bflower(?:s|ing)?\b(?! bud)",
             "fruits": r"(?i)^(?!.*\bno\b).*(?:\bfruit|\bseed)", "buds": r"(?i)\bbud",
             "none": r"(?i)\bno (?:evidence|flower)"}


def build_source(web, s):
    """Return the source that the settings describe."""
    return Gbif(web, s.gbif_url, build_options(s))


class Gbif(RestApi):
    """Yields photographs with their provenance, see `sources.Source`."""

    per_page, limits = PER_PAGE, "slowed down by GBIF where much is asked"
    grain, by_number = PER_PAGE, False

    def __init__(self, web, url, options):
        kinds = ["HUMAN_OBSERVATION"] + ["LIVING_SPECIMEN"] * (options.cultivated != "no")
        filters = {"basisOfRecord": kinds, "checklistKey": CHECKLIST}
        if options.area:
            filters["geometry"] = polygon(*options.area)
        super().__init__(web, url, filters, options)
        self.terms["basisOfRecord"] = ",".join(kinds)

    def ask(self, taxon, season, start, end, at):
        """Return occurrences of a taxon in a season, from index `at` in GBIF's list."""
        records, page = self.records(
            "occurrence/search", taxonKey=taxon, mediaType="StillImage", limit=PER_PAGE, offset=at,
            occurrenceStatus="PRESENT", **({"month": season.split(",")} if season else {}),
            **self.filters)
        count, last = page.get("count"), at + PER_PAGE
        known = isinstance(count, int)
        is_end = (not records or page.get("endOfRecords", len(records) < PER_PAGE)
                  or last >= LAST_OFFSET)
        return Answer(records, (at, end if is_end else last),
                      min(count, LAST_OFFSET) if known else None, count if known else None)

    def key(self, occurrence):
        """Return the key of an occurrence."""
        return occurrence["key"] if occurrence.get("key") else json.dumps(occurrence)

    def read(self, occurrence, passed_over):
        """Return the photographs of an occurrence that have an allowed licence, as results."""
        if reason := self._unwanted(occurrence):
            passed_over[reason] += 1
            return []
        pictures, rest = list_under(occurrence, "media"), self._provenance(occurrence)

        def read_picture(media):
            if media.get("type") != "StillImage" or not text_of(media.get("identifier")):
                passed_over["not a still image"] += 1
            # the record's licence is not that of its media, which may be stricter
            elif code := self.allowed_license(media.get("license"), passed_over):
                where = text_of(media.get("references"))
                photo = {"url": clean_address(media["identifier"]), "license": code, **rest,
                         "page": clean_address(where) if where else rest["page"],
                         "title": text_of(media.get("title")) or rest["title"],
                         **credit_of(media, code)}
                yield self._as_on_inaturalist(photo, occurrence)
        return self.first_photos(read_records(pictures, read_picture, passed_over), passed_over)

    def _unwanted(self, occurrence):
        """Return why an occurrence is not wanted, or ""."""
        means = " ".join(text_of(occurrence.get(name)) for name in (
            "establishmentMeans", "degreeOfEstablishment", "basisOfRecord"))
        cultivated = bool(CULTIVATED.search(means)) or "LIVING_SPECIMEN" in means
        condition = text_of(occurrence.get("reproductiveCondition"))
        if cultivated and self.options.cultivated == "no":
            return "cultivated"
        if not cultivated and self.options.cultivated == "only":
            return "not cultivated"
        phenology = self.options.phenology
        if phenology and not re.search(PHENOLOGY[phenology], condition):
            return f"not annotated as {phenology}"
        return ""

    def _provenance(self, occurrence):
        """Return the columns that all photographs of an occurrence share."""
        key, date = occurrence.get("key") or "", text_of(occurrence.get("eventDate"))
        withheld = " ".join(text_of(occurrence.get(name)) for name in (
            "informationWithheld", "dataGeneralizations"))
        date = re.match(r"\d{4}(-\d\d(-\d\d)?)?", date)
        place = {name: occurrence.get(f"decimal{name.title()}") for name in (
            "latitude", "longitude")}
        return {"page": f"https://www.gbif.org/occurrence/{key}" if key else "",
                "title": text_of(occurrence.get("species"))
                or text_of(occurrence.get("scientificName")),
                "observation": key, "observer": text_of(occurrence.get("recordedBy")),
                "date": date[0] if date else "", "dataset": text_of(occurrence.get("datasetKey")),
                **{name: value for name, value in place.items() if isinstance(value, int | float)},
                "obscured": "yes" if re.search(r"(?i)uncertainty|obscured|withheld|general",
                                               withheld) else ""}

    def _as_on_inaturalist(self, photo, occurrence):
        """Return a result; if it comes from iNaturalist, as iNaturalist itself returns it."""
        pages = [text_of(occurrence.get(name)) for name in ("references", "occurrenceID")]
        if not (occurrence.get("datasetKey") == INATURALIST
                or any(re.match(INATURALIST_PAGE, page) for page in [*pages, photo["page"]])):
            return photo
        photo["url"] = at_size(photo["url"], self.options.size)
        for page in pages:
            if match := re.match(r"https?://www\.inaturalist\.org/observations/(\d+)", page):
                photo |= {"page": page, "observation": match[1]}
                break
        return photo

    def find(self, name):
        """Return the key of the species or genus of a name, by GBIF's own matching.

        A synonym leads to the accepted name and a misspelt name to the nearest, both with a note. A
        match at a higher rank (the genus of an unknown species) would find other plants, and raises
        UnknownName.
        """
        # what is below a species has one of several ranks
        rank = {1: "GENUS", 2: "SPECIES"}.get(len(name_key(name).split()))
        match, notes = self._best_match(name, rank), []
        if match["kind"] in ("FUZZY", "VARIANT"):
            notes.append(f"read as {match['name']}")
        if match["accepted"] != match["key"]:
            notes.append(f"synonym, searched as {match['accepted_name'] or 'the accepted name'}")
        self.note = "; ".join(notes)
        return match["accepted"]

    def _best_match(self, name, rank):
        """Return GBIF's best match of a name in one of the kingdoms; raises UnknownName."""
        matches, higher = [], ""
        for kingdom in self.options.kingdoms:
            match = self._match(name, kingdom, rank)
            if match["kingdom"] != kingdom:
                continue
            if match["kind"] in ("EXACT", "VARIANT", "FUZZY") and (
                    (match["rank"] == "GENUS") == (rank == "GENUS")):
                matches.append(match)
            elif match["kind"] == "HIGHERRANK":
                higher = f"; only the {match['rank'].lower()} {match['name']} matches"
        if not matches:
            raise UnknownName(f"GBIF does not know it{higher}")
        return min(matches, key=lambda match: (
            match["kind"] != "EXACT", -match["confidence"], str(match["key"])))

    def _match(self, name, kingdom, rank):
        """Return GBIF's match of a name in a kingdom, in the taxonomy CHECKLIST.

        A dictionary: kind, key, name, rank, kingdom, confidence, accepted, accepted_name.
        """
        # version 2 of the interface matches names in more than one taxonomy
        url = re.sub(r"/v1$", "/v2", self.url)
        answer = self.get("species/match", url, scientificName=name, taxonRank=rank,
                          kingdom=kingdom, checklistKey=CHECKLIST)
        usage, accepted = dig(answer, "usage"), dig(answer, "acceptedUsage")
        kind, confidence = (dig(answer, "diagnostics", name) for name in (
            "matchType", "confidence"))
        if not text_of(kind):
            raise SearchFailed(f"no match but {own_words(json.dumps(answer))!r}")
        kingdoms = [dig(rank, "name") for rank in dig(answer, "classification") or ()
                    if dig(rank, "rank") == "KINGDOM"]
        return {"kind": kind, "key": dig(usage, "key"), "rank": text_of(dig(usage, "rank")),
                "name": dig(usage, "canonicalName") or text_of(dig(usage, "name")),
                "kingdom": kingdoms[0] if kingdoms else None,
                "confidence": confidence if isinstance(confidence, int | float) else 0,
                "accepted": dig(accepted, "key") or dig(usage, "key"),
                "accepted_name": dig(accepted, "canonicalName") or text_of(dig(accepted, "name"))}


def credit_of(media, code):
    """Return the author of a picture and, without one, whom its licence `code` demands to credit.

    A publisher is no author: its photographs are by many people.
    """
    creator, holder, publisher = (text_of(media.get(key)).strip()
                                  for key in ("creator", "rightsHolder", "publisher"))
    author = creator or (holder if holder != publisher else "")
    is_free = code in ("cc0", "pd")
    return {"author": author, "rights_holder": "" if author or is_free else publisher}


def polygon(west, south, east, north):
    """Return an area as well-known text, its corners anticlockwise as GBIF requires."""
    corners = ((west, south), (east, south), (east, north), (west, north), (west, south))
    return f"POLYGON(({','.join(f'{x:g} {y:g}' for x, y in corners)}))"

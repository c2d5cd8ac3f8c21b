"""Photographs of research-grade observations on iNaturalist (https://api.inaturalist.org/v1/docs).

Its rules (https://www.inaturalist.org/pages/api+recommended+practices): one request per second,
fewer than 10,000 per day.
"""
import re

from dataset_preparation.parsing.rest_api import (
    RestApi,
    build_options,
    dig,
    list_under,
    text_of,
)
from dataset_preparation.parsing.safe_download import clean_address
from dataset_preparation.parsing.sources import ResultPage, UnknownName, read_records

PER_PAGE = 200  # the most that a page may have


def build_source(web, s):
    """Return the source that the settings describe."""
    return INaturalist(web, s.inaturalist_url, build_options(s), s.place_id, s.photo_size)


class INaturalist(RestApi):
    """Yields photographs with their provenance; `sources.Source` says what a source must have."""

    per_page, limits = PER_PAGE, "1 request per second, 10,000 per day"

    def __init__(self, web, url, options, place, size):
        filters = {}
        if options.area:
            corners = ("swlng", "swlat", "nelng", "nelat")
            filters = dict(zip(corners, options.area, strict=True))
        if place:
            filters["place_id"] = place
        super().__init__(web, url, filters, options)
        self.size = self.terms["size"] = size

    def search(self, name, state=None, earlier=()):
        """Yield the pages of a name, oldest observation first; `state` is [taxon, last number].

        Pages are turned by `id_above`: by number they end at the 10,000th observation.
        """
        taxon, last = state or (self._taxon(name), 0)
        while last is not None:
            records, _ = self.records(
                "observations", taxon_id=taxon, quality_grade="research", photos="true",
                photo_license=",".join(self.options.licenses), order_by="id", order="asc",
                id_above=last, per_page=PER_PAGE, **self.filters)
            passed_over = {}
            results = read_records(records, lambda one, passed=passed_over:
                                   self._photos(one, passed), passed_over)
            numbers = [number for number in (dig(record, "id") for record in records)
                       if isinstance(number, int) and number > last]
            last = max(numbers) if numbers and len(records) >= PER_PAGE else None
            yield ResultPage(results, last and [taxon, last], passed_over)

    def _photos(self, observation, passed_over):
        """Return the photographs of an observation that have an allowed licence, as results."""
        number, photos = observation["id"], list_under(observation, "photos")
        rest = {"page": text_of(observation.get("uri"))
                or f"https://www.inaturalist.org/observations/{number}",
                "title": text_of(dig(observation, "taxon", "name")),
                "author": text_of(dig(observation, "user", "name"))
                or text_of(dig(observation, "user", "login"))}

        def read(photo):
            # `photo_license` only means that at least one photograph of the observation has one
            code = text_of(photo.get("license_code")).lower()
            if code in self.options.licenses:
                address = re.sub(r"/square\.(\w+)", rf"/{self.size}.\1", photo["url"])
                yield {"url": clean_address(address), "license": code, **rest,
                       "width": dig(photo, "original_dimensions", "width") or "",
                       "height": dig(photo, "original_dimensions", "height") or ""}
        allowed = read_records(photos, read, passed_over)
        return allowed[:self.options.per_observation or None]

    def _taxon(self, name):
        """Return the number of the species or genus of this name, the accepted one if renamed."""
        rank = "species,subspecies,variety,hybrid" if " " in name else "genus"
        found, _ = self.records("taxa", q=name, rank=rank, is_active="any", per_page=30)
        found = [taxon for taxon in found
                 if taxon.get("iconic_taxon_name") in self.options.kingdoms]
        same = [taxon for taxon in found if name.lower() in (
            taxon["name"].lower(), (taxon.get("matched_term") or "").lower())]
        same.sort(key=lambda taxon: (taxon["name"].lower() != name.lower(),
                                     not taxon.get("is_active")))
        if not same:
            others = ", ".join(taxon["name"] for taxon in found[:3])
            raise UnknownName(f"iNaturalist does not know it{others and f'; it offers {others}'}")
        best, accepted = same[0], same[0].get("current_synonymous_taxon_ids") or []
        if not best.get("is_active", True):
            if len(accepted) != 1:
                raise UnknownName("iNaturalist no longer uses the name; accepted instead: "
                                  f"{accepted or 'none'}")
            self.note = f"renamed on iNaturalist, searched as taxon {accepted[0]}"
            return accepted[0]
        if best["name"].lower() != name.lower():
            self.note = f"synonym, searched as {best['name']}"
        return best["id"]

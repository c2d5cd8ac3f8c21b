"""Photographs of research-grade observations on iNaturalist (https://api.inaturalist.org/v1/docs).

Its rules (https://www.inaturalist.org/pages/api+recommended+practices): one request per second,
fewer than 10,000 per day.
"""
import re

from dataset_preparation.parsing.parsing_utils import UnknownName
from dataset_preparation.parsing.rest_api import RestApi, build_options
from dataset_preparation.parsing.safe_download import clean_address

PER_PAGE = 200  # the most that a page may have


def build_source(web, s):
    """Return the source that the settings describe."""
    return INaturalist(web, s.inaturalist_url, build_options(s), s.place_id, s.photo_size)


class INaturalist(RestApi):
    """Yields photographs with their provenance; `parsing.SOURCES` says what a source must have."""

    def __init__(self, web, url, options, place, size):
        filters = {}
        if options.area:
            corners = ("swlng", "swlat", "nelng", "nelat")
            filters = dict(zip(corners, options.area, strict=True))
        if place:
            filters["place_id"] = place
        super().__init__(web, url, filters, options)
        self.size = self.terms["size"] = size

    def search(self, name):
        """Yield the photographs of a name, oldest observation first.

        Pages are turned by `id_above`: by number they end at the 10,000th observation.
        """
        taxon, last = self._taxon(name), 0
        while True:
            page = self.get("observations", taxon_id=taxon, quality_grade="research", photos="true",
                            photo_license=",".join(self.options.licenses), order_by="id",
                            order="asc", id_above=last, per_page=PER_PAGE, **self.filters)
            for observation in page["results"]:
                last = observation["id"]
                yield from self._photos(observation)
            if len(page["results"]) < PER_PAGE:
                return

    def _photos(self, observation):
        """Yield the photographs of an observation that have an allowed licence, as results."""
        # `photo_license` only means that at least one photograph of the observation has one
        allowed = [photo for photo in observation["photos"]
                   if (photo["license_code"] or "").lower() in self.options.licenses]
        number, title = observation["id"], (observation.get("taxon") or {}).get("name", "")
        page = observation.get("uri") or f"https://www.inaturalist.org/observations/{number}"
        for photo in allowed[:self.options.per_observation or None]:
            size = photo.get("original_dimensions") or {}
            yield {"url": clean_address(re.sub(r"/square\.(\w+)", rf"/{self.size}.\1",
                                               photo["url"])),
                   "page": page, "title": title, "license": photo["license_code"].lower(),
                   "author": observation["user"].get("name") or observation["user"]["login"],
                   "width": size.get("width", ""), "height": size.get("height", "")}

    def _taxon(self, name):
        """Return the number of the species or genus of this name, the accepted one if renamed."""
        rank = "species,subspecies,variety,hybrid" if " " in name else "genus"
        found = self.get("taxa", q=name, rank=rank, is_active="any", per_page=30)["results"]
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

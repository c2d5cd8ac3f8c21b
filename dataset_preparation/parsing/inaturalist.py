"""Photographs of research-grade observations on iNaturalist (https://api.inaturalist.org/v1/docs).

Their rules (https://www.inaturalist.org/pages/api+recommended+practices): one question a second, below 10,000 a day.
"""
import re

import config
from dataset_preparation.parsing.parsing_utils import UnknownName, require_known
from dataset_preparation.parsing.rest_api import OpenInterface, build_options
from dataset_preparation.parsing.safe_download import clean_address

SIZES = ("small", "medium", "large", "original")
PER_PAGE = 200  # the most they give


def build_source(web):
    """Return the source as the settings describe it."""
    return INaturalist(web, config.INATURALIST_URL, place=config.PLACE_ID, size=config.PHOTO_SIZE, **build_options())


class INaturalist(OpenInterface):
    """Yields photographs with their pedigree; see `parsing.SOURCES` for what a source must offer."""

    def __init__(self, web, url, area, place, size, **options):
        require_known("PHOTO_SIZE", [size], SIZES)
        filters = dict(zip(("swlng", "swlat", "nelng", "nelat"), area, strict=True)) if area else {}
        if place:
            filters["place_id"] = place
        super().__init__(web, url, filters, **options)
        self.size = self.terms["size"] = size

    def search(self, name):
        """Yield the photographs of a name, oldest observation first.

        Pages are turned by `id_above`: by number they end at the 10,000th observation.
        """
        taxon, last = self._taxon(name), 0
        while True:
            answer = self.ask("observations", taxon_id=taxon, quality_grade="research", photos="true",
                              photo_license=",".join(self.licenses), order_by="id", order="asc", id_above=last,
                              per_page=PER_PAGE, **self.filters)
            for observation in answer["results"]:
                last = observation["id"]
                yield from self._photos(observation)
            if len(answer["results"]) < PER_PAGE:
                return

    def _photos(self, observation):
        """Yield the photographs of an observation whose own licence allows it, as found rows."""
        # `photo_license` only means that at least one photograph of the observation has such a licence
        allowed = [photo for photo in observation["photos"] if (photo["license_code"] or "").lower() in self.licenses]
        taxon = observation.get("taxon") or {}
        for photo in allowed[:self.per_observation or None]:
            size = photo.get("original_dimensions") or {}
            yield {"url": clean_address(re.sub(r"/square\.(\w+)", rf"/{self.size}.\1", photo["url"])),
                   "page": observation.get("uri") or f"https://www.inaturalist.org/observations/{observation['id']}",
                   "title": taxon.get("name", ""), "license": photo["license_code"].lower(),
                   "author": observation["user"].get("name") or observation["user"]["login"],
                   "width": size.get("width", ""), "height": size.get("height", "")}

    def _taxon(self, name):
        """Return the number of a species or genus of this very name, of the accepted one when it was renamed."""
        rank = "species,subspecies,variety,hybrid" if " " in name else "genus"
        found = [taxon for taxon in self.ask("taxa", q=name, rank=rank, is_active="any", per_page=30)["results"]
                 if taxon.get("iconic_taxon_name") in self.kingdoms]
        same = [taxon for taxon in found
                if name.lower() in (taxon["name"].lower(), (taxon.get("matched_term") or "").lower())]
        same.sort(key=lambda taxon: (taxon["name"].lower() != name.lower(), not taxon.get("is_active")))
        if not same:
            others = ", ".join(taxon["name"] for taxon in found[:3])
            raise UnknownName(f"iNaturalist does not know it{others and f'; it offers {others}'}")
        best, accepted = same[0], same[0].get("current_synonymous_taxon_ids") or []
        if not best.get("is_active", True):
            if len(accepted) != 1:
                raise UnknownName(f"iNaturalist has given up the name; accepted instead: {accepted or 'none'}")
            self.note = f"renamed on iNaturalist, searched as taxon {accepted[0]}"
            return accepted[0]
        if best["name"].lower() != name.lower():
            self.note = f"synonym, searched as {best['name']}"
        return best["id"]

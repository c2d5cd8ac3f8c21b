"""Photographs of observations on iNaturalist (https://api.inaturalist.org/v1/docs).

Its rules (https://www.inaturalist.org/pages/api+recommended+practices): one request per second,
fewer than 10,000 per day.
"""
import json

from dataset_preparation.parsing.addresses import at_size, clean_address, fitting_size
from dataset_preparation.parsing.rest_api import Answer, RestApi
from dataset_preparation.parsing.scientific_names import bare_name, name_key, taxon_ranks
from dataset_preparation.parsing.source_settings import build_options
from dataset_preparation.parsing.sources import UnknownName, dig, list_under, read_records, text_of

PER_PAGE = 200  # the most that a page may have
# Of an annotation: https://www.inaturalist.org/pages/annotations ("Plant Phenology")
PHENOLOGY_TERM, PHENOLOGY = 12, {"flowers": 13, "fruits": 14, "buds": 15, "none": 21}
# Cultivated plants never get research grade; agreement of most people comes closest to it.
CULTIVATED = {"no": {"quality_grade": "research", "captive": "false"},
              "too": {"quality_grade": "research,casual", "identifications": "most_agree"},
              "only": {"quality_grade": "research,casual", "identifications": "most_agree",
                       "captive": "true"}}


def build_source(web, s):
    """Return the source that the settings describe."""
    return INaturalist(web, s.inaturalist_url, build_options(s))


class INaturalist(RestApi):
    """Yields photographs with their provenance, see `sources.Source`."""

    per_page, limits = PER_PAGE, "1 request per second, 10,000 per day"

    def __init__(self, web, url, options):
        filters = dict(CULTIVATED[options.cultivated])
        if options.area:
            corners = ("swlng", "swlat", "nelng", "nelat")
            filters |= zip(corners, options.area, strict=True)
        if options.phenology:
            filters |= {"term_id": PHENOLOGY_TERM, "term_value_id": PHENOLOGY[options.phenology]}
        super().__init__(web, url, filters, options)

    def ask(self, taxon, season, start, end, at):
        """Return observations of a taxon: the newest of a season without end, else from `at` on.

        Pages are requested by observation number (`id_above`, `id_below`), because page numbers end
        at the 10,000th observation.
        """
        newest = bool(season) and end is None
        limits = {"id_above": at, **({"id_below": end + 1} if end else {}),  # neither included
                  **({"month": season} if season else {})}
        records, response = self.records(
            "observations", taxon_id=taxon, photos="true", order_by="id",
            photo_license=",".join(self.options.licenses), order="desc" if newest else "asc",
            per_page=PER_PAGE, **limits, **self.filters)
        numbers = [number for number in (dig(record, "id") for record in records)
                   if isinstance(number, int) and number > at]
        total, full = response.get("total_results"), len(records) >= PER_PAGE and numbers
        if newest and numbers and numbers[0] >= numbers[-1]:
            covered = (numbers[-1] - 1 if full else start, None)
        else:
            covered = (at, max(numbers) if full else end)
        return Answer(records, covered, total=total if isinstance(total, int) else None)

    def key(self, observation):
        """Return the number of an observation, or all of it if it has none."""
        return observation["id"] if observation.get("id") else json.dumps(observation)

    def read(self, observation, passed_over):
        """Return the photographs of an observation that have an allowed licence, as results."""
        number, photos = observation.get("id") or "", list_under(observation, "photos")
        user, place = observation.get("user"), dig(observation, "geojson", "coordinates")
        rest = {"page": text_of(observation.get("uri"))
                or f"https://www.inaturalist.org/observations/{number}",
                "title": text_of(dig(observation, "taxon", "name")),
                "author": text_of(dig(user, "name")) or text_of(dig(user, "login")),
                "observation": number, "observer": dig(user, "login") or dig(user, "id") or "",
                "date": text_of(observation.get("observed_on")),
                "obscured": "yes" if observation.get("obscured") is True else ""}
        if isinstance(place, list) and len(place) == 2 and all(
                isinstance(one, int | float) for one in place):
            rest |= {"longitude": place[0], "latitude": place[1]}

        def read_photo(photo):
            # `photo_license` only means that at least one photograph of the observation has one
            if code := self.allowed_license(photo.get("license_code"), passed_over):
                width, height = (dig(photo, "original_dimensions", name) or ""
                                 for name in ("width", "height"))
                size = fitting_size(self.options.size, width, height)
                yield {"url": clean_address(at_size(photo["url"], size)), "license": code,
                       **rest, "width": width, "height": height}
        return self.first_photos(read_records(photos, read_photo, passed_over), passed_over)

    def find(self, name):
        """Return the number of the species or genus of this name, or of its accepted name."""
        key, found = name_key(name), []
        for spelling in dict.fromkeys((name, bare_name(name))):
            found += self._taxa(spelling, taxon_ranks(name))
            same = [taxon for taxon in found if key in (
                name_key(taxon["name"]), name_key(text_of(taxon.get("matched_term"))))]
            if same:
                break
        same.sort(key=lambda taxon: (taxon["name"].lower() != name.lower(),
                                     name_key(taxon["name"]) != key, not taxon.get("is_active")))
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
        if name_key(best["name"]) != key:
            self.note = f"synonym, searched as {best['name']}"
        return best["id"]

    def _taxa(self, name, ranks):
        """Return iNaturalist's taxa of a name, or one like it, in the kingdoms wanted."""
        found, _ = self.records("taxa", q=name, rank=",".join(ranks), is_active="any", per_page=30)
        return [taxon for taxon in found if text_of(dig(taxon, "name")) and dig(taxon, "id")
                and taxon.get("iconic_taxon_name") in self.options.kingdoms]

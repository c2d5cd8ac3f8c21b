"""Choose photographs that are spread over observers, places, years and seasons.

The first 200 photographs in a source's list may all be one person's, of one afternoon. So the next
photograph is always of the observer chosen least often so far and, among these, of the place, year
and season chosen least often; this greedily minimises the sum of the squared counts. One photograph
of every observation comes before a second one of any.
"""
import heapq
import math
from collections import Counter, defaultdict

from utils import sha256

CELL = 0.2  # degrees, about 20 km: iNaturalist moves obscured observations within such a cell
SEASONS = ("12,1,2", "3,4,5", "6,7,8", "9,10,11")  # months


# ---- observation, place, time and observer of a photograph ----

def observation_of(row):
    """Return the identity of the observation of a row of found.csv or a result."""
    return str(row.get("observation") or row.get("page") or row["url"])


def map_cell_of(row):
    """Return the (row, column) of a row's cell on the map, None without a position."""
    try:
        return tuple(math.floor(float(row[name]) / CELL) for name in ("latitude", "longitude"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def year_of(row):
    """Return the year of a row as text, "" if it has none."""
    return str(row.get("date") or "")[:4]


def season_of(row):
    """Return the number of the season of a row, None if it has no month."""
    month = str(row.get("date") or "")[5:7]
    return int(month) % 12 // 3 if month.isdecimal() else None


def observer_of(row):
    """Return the observer of a row, "" if unknown."""
    return str(row.get("observer") or row.get("author") or "")


# ---- sampling ----

class Spread:
    """Takes results from a pool so that they are spread; depends on seed and results only."""

    def __init__(self, seed, earlier=()):
        self.seed, self.counts = seed, Counter()
        for row in earlier:
            self.counts.update(traits(row))

    def take(self, pool, count, fresh=False):
        """Remove the next `count` results from a pool, a list of results, and return them.

        With `fresh`, only photographs of observations without a chosen photograph.
        """
        known = [traits(row) for row in pool]
        heap = [(*self._cost(keys), fraction(self.seed, keys[0][1]), index)
                for index, keys in enumerate(known)]
        heapq.heapify(heap)
        taken = []
        while heap and len(taken) < count:
            *_, tie, index = heapq.heappop(heap)
            entry = (*self._cost(known[index]), tie, index)
            if heap and entry > heap[0]:  # its cost has risen since
                heapq.heappush(heap, entry)
                continue
            if fresh and entry[0]:
                break
            self.counts.update(known[index])
            taken.append(index)
        results, gone = [pool[index] for index in taken], set(taken)
        pool[:] = [row for index, row in enumerate(pool) if index not in gone]
        return results

    def is_fresh(self, pool):
        """Return whether a pool has an observation without a chosen photograph."""
        return any(not self.counts["observation_of", observation_of(row)] for row in pool)

    def _cost(self, keys):
        """Return how often a photograph's traits were chosen, the most important first."""
        observation, observer, cell, year, season = map(self.counts.__getitem__, keys)
        return observation, observer, cell + year + season


def traits(row):
    """Return the traits of a row as keys: observation, observer, cell, year and season."""
    return tuple((of.__name__, of(row))
                 for of in (observation_of, observer_of, map_cell_of, year_of, season_of))


# ---- which pages to read ----

def fraction(*parts):
    """Return a number in [0, 1) that is a function of the parts."""
    return int(sha256(":".join(map(str, parts)).encode())[:13], 16) / 16 ** 13


def choose_gap(gaps, read, seed, grain=1):
    """Return (index of a gap to read a page of, position to read it from).

    A gap is [season, start, end or None if unknown]. The widest gap of the season with the fewest
    pages `read` ({season: pages}) is chosen, and read from a random position in it, a multiple of
    `grain` after its start.
    """
    def order(index):
        season, start, end = gaps[index]
        return (read[season], -math.inf if end is None else start - end, index)
    index = min(range(len(gaps)), key=order)
    season, start, end = gaps[index]
    steps = 0 if end is None else -(-(end - start) // grain)
    return index, start + grain * int(steps * fraction(seed, season, start, end))


def cut_gap(gaps, index, covered):
    """Replace a gap by what remains of it after a page that covered (start, end)."""
    season, start, end = gaps.pop(index)
    first, last = covered
    left = [[season, start, first]] if first > start else []
    right = [[season, last, end]] if last is not None and (end is None or last < end) else []
    gaps[index:index] = left + right


# ---- the report ----

def spread_lines(saved, classes):
    """Return the lines about the spread of the photographs of saved rows in each class."""
    lines, rows_of = [], defaultdict(list)
    for row in saved:
        rows_of[row["class"]].append(row)
    for name, rows in ((plant.latin, rows_of[plant.latin]) for plant in classes):
        kinds = ((observer_of, ""), (year_of, ""), (map_cell_of, None))
        known = [len({kind(row) for row in rows} - {unknown}) for kind, unknown in kinds]
        most = Counter(filter(None, map(observer_of, rows))).most_common(1)
        if any(known[1:]):  # without dates and places, authors are only names of web pages
            lines.append(f"{name:32} {known[0]:9,} {known[1]:7,} {known[2]:7,} {most[0][1]:11,}"
                         if most else f"{name:32} {0:9} {known[1]:7,} {known[2]:7,} {0:11}")
    header = f"{'spread of the photographs':32} observers   years   cells  most by one"
    return [header, *lines] if lines else []

"""Which of many photographs to take: spread over observers, places, years and seasons.

The first 200 photographs that a source lists may all be one person's, of one afternoon. Here the
next photograph is always that of the observer taken least often so far, and among these the one
whose place, year and season were taken least often; that minimises, one photograph at a time, the
sum of the squared counts. One photograph of an observation comes before a second of any.
"""
import heapq
import math
from collections import Counter, defaultdict

from utils import sha256

CELL = 0.2  # degrees, about 20 km: iNaturalist moves obscured observations within such a cell
SEASONS = ("12,1,2", "3,4,5", "6,7,8", "9,10,11")  # months


# ---- what a photograph is one of ----

def observation_of(row):
    """Return what names the observation of a row of found.csv or a result."""
    return row.get("observation") or row.get("page") or row["url"]


def cell_of(row):
    """Return the cell of the map, as (row, column), that a row lies in, None without a place."""
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
    """Return who made the observation of a row; "" where nobody is named."""
    return str(row.get("observer") or row.get("author") or "")


# ---- sampling ----

class Spread:
    """Takes results from a pool so that they are spread; a function of the seed and the results."""

    def __init__(self, seed, earlier=()):
        self.seed, self.counts = seed, Counter()
        for row in earlier:
            self.counts.update(traits(row))

    def take(self, pool, count, fresh=False):
        """Remove the next `count` results from a pool, a list of results, and return them.

        With `fresh`, only photographs of observations of which nothing was taken.
        """
        known = [traits(row) for row in pool]
        heap = [(*self._cost(keys), fraction(self.seed, keys[0][1]), index)
                for index, keys in enumerate(known)]
        heapq.heapify(heap)
        taken = []
        while heap and len(taken) < count:
            *_, tie, index = heapq.heappop(heap)
            entry = (*self._cost(known[index]), tie, index)
            if heap and entry > heap[0]:  # it costs more since others were taken
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
        """Return whether a pool has an observation of which nothing was taken."""
        return any(not self.counts["observation_of", observation_of(row)] for row in pool)

    def _cost(self, keys):
        """Return how often what the photograph is one of was taken, what counts most first."""
        observation, observer, cell, year, season = map(self.counts.__getitem__, keys)
        return observation, observer, cell + year + season


def traits(row):
    """Return what a row is one of: observation, observer, cell, year and season, as keys."""
    return tuple((of.__name__, of(row))
                 for of in (observation_of, observer_of, cell_of, year_of, season_of))


# ---- which pages to read ----

def fraction(*parts):
    """Return a number in [0, 1) that is a function of the parts."""
    return int(sha256(":".join(map(str, parts)).encode())[:13], 16) / 16 ** 13


def choose_gap(gaps, read, seed, grain=1):
    """Return (index of a gap to read a page of, position to read it from).

    A gap is [season, start, end or None if unknown]. The season with the fewest pages `read`
    ({season: pages}) comes first, in it the widest gap, read from a position of it that the seed
    decides, a multiple of `grain` after its start.
    """
    def order(index):
        season, start, end = gaps[index]
        return (read[season], -math.inf if end is None else start - end, index)
    index = min(range(len(gaps)), key=order)
    season, start, end = gaps[index]
    steps = 0 if end is None else -(-(end - start) // grain)
    return index, start + grain * int(steps * fraction(seed, season, start, end))


def cut_gap(gaps, index, covered):
    """Replace a gap by what a page that covered (start, end) leaves of it."""
    season, start, end = gaps.pop(index)
    first, last = covered
    left = [[season, start, first]] if first > start else []
    right = [[season, last, end]] if last is not None and (end is None or last < end) else []
    gaps[index:index] = left + right


# ---- the account ----

def spread_lines(saved, classes):
    """Return the lines that say how the photographs of saved rows are spread in each class."""
    lines, rows_of = [], defaultdict(list)
    for row in saved:
        rows_of[row["class"]].append(row)
    for name, rows in ((plant.latin, rows_of[plant.latin]) for plant in classes):
        kinds = ((observer_of, ""), (year_of, ""), (cell_of, None))
        known = [len({kind(row) for row in rows} - {unknown}) for kind, unknown in kinds]
        most = Counter(filter(None, map(observer_of, rows))).most_common(1)
        if any(known[1:]):  # where not even dates are known, authors are but names of web pages
            lines.append(f"{name:32} {known[0]:9,} {known[1]:7,} {known[2]:7,} {most[0][1]:11,}"
                         if most else f"{name:32} {0:9} {known[1]:7,} {known[2]:7,} {0:11}")
    header = f"{'spread of the photographs':32} observers   years   cells  most by one"
    return [header, *lines] if lines else []

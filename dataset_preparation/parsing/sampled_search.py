"""Searches that read pages from everywhere in a source's list, then choose among their results.

The pages read are kept in `<COLLECTED_DIR>/pages/`, a file for each search, and none of them is
asked for twice: a search that goes on repeats its steps from that file. It may be deleted at any
time; its pages are then asked for again.
"""
import base64
import json
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from dataset_preparation.parsing.parsing_utils import query_of
from dataset_preparation.parsing.rest_api import RestApi
from dataset_preparation.parsing.sampling import SEASONS, Spread, choose_gap, cut_gap
from dataset_preparation.parsing.sources import ResultPage, read_records
from dataset_preparation.progress_journal import Journal
from utils import sha256

STEP = 100  # results yielded at once


class Answer(NamedTuple):
    """What a source answers to the question for one page of its list."""

    records: list
    covered: tuple = ()  # positions from first to before last; None as the last: to the end
    end: object = None  # position behind the last record there is, None if not known
    total: object = None  # records in the whole list, None if not known
    gaps: object = None  # instead of `covered`, what is left of the gap: a list of gaps


class SampledApi(RestApi):
    """A REST API whose list of records is sampled.

    A subclass has `find(name)`, which returns what `ask` calls the species, any JSON value;
    `ask(taxon, season, start, end, at)`, which returns the `Answer` with records of a gap between
    two positions, from position `at` on (of all months where `season` is ""); `key(record)`, the
    name of a record; and `read(record, passed_over)`, its results. `grain` is the distance of two
    positions at which a page may begin; `by_number` tells whether positions are the numbers of
    records, the same in every season, or places in the list.
    """

    grain, by_number = 1, True

    def __init__(self, web, url, filters, options):
        super().__init__(web, url, filters, options)
        if options.spread_pages:
            self.terms |= {"spread": options.spread_pages, "seed": options.seed}

    def page_count(self, kind, count):
        """Return how many responses `count` results take at most, that for the name among them."""
        return 1 + max(1 + self.options.spread_pages, -(-count // self.per_page))

    def search(self, name, state=None, earlier=()):
        """Yield the pages of a name: those read, without results, then the results chosen.

        `state` is the number of pages yielded before.
        """
        header = {"url": self.url, "query": query_of(self, name)}
        file = sha256(" ".join(header.values()).encode())[:16]
        path = Path(self.options.folder) / "pages" / f"{file}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = Journal(path, header)
        try:
            for number, page in enumerate(self._steps(name, Answers(journal)), 1):
                if page.state is None:
                    journal.finish()
                if number > (state or 0):
                    yield page._replace(state=page.state and number)
        finally:
            journal.close()

    def _steps(self, name, answers):
        """Yield the pages of a search from its beginning; state None marks the last."""
        taxon, self.note = answers.get(["name", name], lambda: (self.find(name), self.note))
        pages, pool = Pages(self, taxon, answers), []
        spread = Spread(self.options.seed) if self.options.spread_pages else None
        while True:
            if pages.gaps and (not pages.enough() or not spread or not spread.is_fresh(pool)):
                results, passed_over = pages.read()
                pool += results
                chosen = pool[:] if spread is None else []
            else:
                chosen, passed_over = spread.take(pool, STEP, fresh=bool(pages.gaps)), {}
            if spread is None:
                pool.clear()
            more = bool(pages.gaps or pool)
            yield ResultPage(chosen, more or None, passed_over)
            if not more:
                return


class Answers:
    """What was answered to the questions of a search, earlier or now, in their order."""

    def __init__(self, journal):
        self.journal, self.known = journal, list(journal.entries)

    def get(self, question, ask):
        """Return the answer to a question: the known one, else what `ask()` returns."""
        if self.known and self.known[0]["question"] == question:
            return self.known.pop(0)["answer"]
        self.known.clear()
        answer = ask()
        self.journal.append({"question": question, "answer": answer})
        return answer


class Pages:
    """The list of one search: the pages read so far and the gaps between them.

    The first page tells how long the list is. A short one is read from end to end. Of a long one,
    `spread_pages` more are read, of each season in turn; the gaps follow where these are too few.
    """

    def __init__(self, api, taxon, answers):
        self.api, self.taxon, self.answers = api, taxon, answers
        self.gaps, self.counts, self.seen = [["", 0, None]], Counter(), set()
        self.most, self.spreading = 1 + api.options.spread_pages, False

    def enough(self):
        """Return whether as many pages are read as are to be chosen from."""
        return self.counts.total() >= self.most

    def read(self):
        """Read one more page; return (its results, what was passed over)."""
        index, at = 0, self.gaps[0][1]
        if self.spreading and not self.enough():
            index, at = choose_gap(self.gaps, self.counts, self.api.options.seed, self.api.grain)
        season, start, end = self.gaps[index]
        page = self.answers.get([season, start, end, at], lambda: self._ask(season, start, end, at))
        first = not self.counts
        self.counts[season] += 1
        self.gaps[index][2] = page["end"] if end is None else end
        if page["gaps"] is not None:
            self.gaps[index:index + 1] = page["gaps"]
        else:
            cut_gap(self.gaps, index, page["covered"])
        if first and self.gaps and (page["total"] or 0) > self.most * self.api.per_page:
            self._divide()
        packed = zlib.decompress(base64.b64decode(page["packed"]))
        new = [(key, some) for key, some in json.loads(packed) if key not in self.seen]
        self.seen.update(key for key, _ in new)
        return [result for _, some in new for result in some], page["passed_over"]

    def _divide(self):
        """Replace the gap after the first page by one of each season."""
        if self.most > 1:
            start = self.gaps[0][1] if self.api.by_number else 0
            self.gaps, self.spreading = [[season, start, None] for season in SEASONS], True

    def _ask(self, season, start, end, at):
        """Return the answer to one question as it is kept in the file."""
        answer, passed_over = self.api.ask(self.taxon, season, start, end, at), Counter()
        found = read_records(
            answer.records, lambda record: [(str(self.api.key(record)),
                                             self.api.read(record, passed_over))], passed_over)
        packed = base64.b64encode(zlib.compress(json.dumps(found).encode())).decode()
        return {"packed": packed, "passed_over": passed_over, "covered": answer.covered,
                "end": answer.end, "total": answer.total, "gaps": answer.gaps}

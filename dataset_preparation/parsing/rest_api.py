"""Base of sources with a REST API: polite requests, and samples from all parts of their lists.

A search reads pages from all parts of a source's list, then chooses among their results. The pages
are kept in `<COLLECTED_DIR>/pages/`, one file per search, and are never requested twice: a
continued search repeats its steps from that file. The file may be deleted at any time; its pages
are then requested again.
"""
import base64
import json
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import requests

from dataset_preparation.licenses import is_allowed, read_license
from dataset_preparation.parsing.collected_tables import query_of
from dataset_preparation.parsing.safe_download import (
    Failed,
    HostUnavailable,
    Patience,
    Refused,
    retry,
)
from dataset_preparation.parsing.sampling import SEASONS, Spread, choose_gap, cut_gap
from dataset_preparation.parsing.source_settings import PHOTO_MB
from dataset_preparation.parsing.sources import (
    ResultPage,
    SearchFailed,
    SiteFailed,
    Source,
    SourceStopped,
    dig,
    read_records,
    text_of,
)
from dataset_preparation.progress_journal import Journal
from utils import sha256

ATTEMPTS = 4  # per request
STEP = 100  # results per page of a search
REPEATED = "page that the source gives again and again"


class Answer(NamedTuple):
    """A source's answer to the request for one page of its list."""

    records: list
    covered: tuple = ()  # positions (first, after the last); None as the second: to the end
    end: object = None  # position after the last record of the list, None if unknown
    total: object = None  # records in the whole list, None if unknown
    gaps: object = None  # instead of `covered`, the list of gaps that replaces the gap


class RestApi(Source):
    """A source with JSON responses, whose list of records is sampled.

    A subclass defines `find(name)`, which returns the taxon for `ask`, any JSON value;
    `ask(taxon, season, start, end, at)`, which returns the `Answer` with records of a gap between
    two positions, from position `at` on (of all months if `season` is ""); `key(record)`, the name
    of a record; and `read(record, passed_over)`, its results. `grain` is the distance between
    possible starts of a page; `by_number`: whether positions are the numbers of records, the same
    in every season, or indices in the list. `filters` are parameters of every request.
    """

    per_page, grain, by_number = 100, 1, True

    def __init__(self, web, url, filters, options):
        self.web, self.url, self.filters, self.options = web, url.rstrip("/"), filters, options
        self.patience = Patience(web.network.patience if web else 0)
        self.terms = {**filters, "license": ",".join(options.licenses),
                      "kingdom": ",".join(options.kingdoms), "each": options.per_observation,
                      "size": options.size}
        if options.spread_pages:
            self.terms |= {"spread": options.spread_pages, "seed": options.seed}
        self.last_request = 0.0  # time.monotonic()
        self.page_seconds, self.usual_mb = 1.0 + options.delay, PHOTO_MB[options.size]

    def page_count(self, kind, count):
        """Return the largest number of responses for `count` results, including the name's."""
        return 1 + max(1 + self.options.spread_pages, -(-count // self.per_page))

    # ---- one request ----

    def get(self, path, base="", /, **params):
        """Return the JSON response of a path, after retries; raise SearchFailed.

        `base` is the address before the path, by default the source's.
        """
        address = requests.Request("GET", f"{base or self.url}/{path}", params=params).prepare().url
        try:
            body = retry(lambda: self._fetch(address), ATTEMPTS, patience=self.patience)
        except HostUnavailable as error:
            raise SourceStopped(f"{error} at {address}") from None
        except Failed as error:
            raise SiteFailed(f"{error} at {address}") from None
        except Refused as error:
            raise SearchFailed(f"{error} at {address}") from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError):  # the latter where it is nested without end
            raise SearchFailed(f"no JSON but {own_words(body)!r} at {address}") from None

    def records(self, path, **params):
        """Return (list of records under "results", whole response) of a path."""
        response = self.get(path, **params)
        found = dig(response, "results")
        if not isinstance(found, list):
            raise SearchFailed(f"no list of results at {path} but "
                               f"{own_words(json.dumps(response))!r}")
        return found, response

    def allowed_license(self, text, passed_over):
        """Return the licence in a text if it is allowed, else "" and count the reason."""
        code = read_license(text)
        if is_allowed(code, self.options.licenses):
            return code
        missing = "licence not understood" if text_of(text).strip() else "no licence"
        passed_over[f"licence not wanted: {code}" if code else missing] += 1
        return ""

    def first_photos(self, photos, passed_over):
        """Return the photographs of one plant up to the limit; count the others."""
        most = self.options.per_observation or len(photos)
        if len(photos) > most:
            passed_over["further photographs of a plant"] += len(photos) - most
        return photos[:most]

    def _fetch(self, address):
        """Return the body of an address, after the delay since the last request."""
        time.sleep(max(0.0, self.last_request + self.options.delay - time.monotonic()))
        self.last_request = time.monotonic()
        return self.web.fetch(address)

    # ---- a search ----

    def search(self, name, state=None, earlier=()):
        """Yield the pages of a name: first those read, without results, then the chosen results.

        `state` is the number of pages yielded before.
        """
        header = {"url": self.url, "query": query_of(self, name)}
        file = sha256(" ".join(header.values()).encode())[:16]
        path = Path(self.options.folder) / "pages" / f"{file}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        journal = Journal(path, header)
        try:
            for number, page in enumerate(self._steps(name, StoredAnswers(journal)), 1):
                if page.state is None:
                    journal.finish()
                if number > (state or 0):
                    yield page._replace(state=page.state and number)
        finally:
            journal.close()

    def _steps(self, name, answers):
        """Yield the pages of a search from its start; state None marks the last."""
        taxon, self.note = answers.get(["name", name], lambda: (self.find(name), self.note))
        pages, pool, spread = Pages(self, taxon, answers), [], Spread(self.options.seed)
        while pages.gaps or pool:
            chosen, passed_over = [], {}
            if pages.gaps and not (pages.enough() and spread.is_fresh(pool)):
                results, passed_over = pages.read()
                pool += results
            else:
                chosen = spread.take(pool, STEP, fresh=bool(pages.gaps))
            if not self.options.spread_pages:
                chosen, pool = pool, []
            yield ResultPage(chosen, bool(pages.gaps or pool) or None, passed_over)


class StoredAnswers:
    """The answers to the questions of a search in their order, of earlier runs and of this one."""

    def __init__(self, journal):
        self.journal, self.known = journal, list(journal.entries)

    def get(self, question, ask):
        """Return the answer to a question: the stored one, or else that of `ask()`."""
        if self.known and self.known[0]["question"] == question:
            return self.known.pop(0)["answer"]
        self.known.clear()
        answer = ask()
        self.journal.append({"question": question, "answer": answer})
        return answer


class Pages:
    """The list of one search: the pages read so far and the gaps between them.

    The first page gives the length of the list. A short list is read completely. Of a long one,
    `spread_pages` more pages are read, of each season in turn, then the gaps if this is not enough.
    No question is asked twice, and an answer that is the same as that to another question leads to
    no further ones: a faulty list may have no end.
    """

    def __init__(self, api, taxon, answers):
        self.api, self.taxon, self.answers = api, taxon, answers
        self.gaps, self.counts, self.seen = [["", 0, None]], Counter(), set()
        self.most, self.spreading = 1 + api.options.spread_pages, False
        self.asked, self.answered = set(), set()

    def enough(self):
        """Return whether enough pages are read to choose from."""
        return self.counts.total() >= self.most

    def read(self):
        """Read one more page; return (its results, skipped records by reason)."""
        index, at = 0, self.gaps[0][1]
        if self.spreading and not self.enough():
            index, at = choose_gap(self.gaps, self.counts, self.api.options.seed, self.api.grain)
        season, start, end = self.gaps[index]
        question = [season, start, end, at]
        if is_repeated(question, self.asked):
            del self.gaps[index]
            return [], {REPEATED: 1}
        page, first = self.answers.get(question, lambda: self._ask(*question)), not self.counts
        self.counts[season] += 1
        self.gaps[index][2] = page["end"] if end is None else end
        found = json.loads(zlib.decompress(base64.b64decode(page["packed"])))
        if found and is_repeated([season, found], self.answered):
            del self.gaps[index]
            return [], Counter(page["passed_over"]) + Counter([REPEATED])
        if page["gaps"] is not None:
            self.gaps[index:index + 1] = page["gaps"]
        else:
            cut_gap(self.gaps, index, page["covered"])
        if first and self.gaps and (page["total"] or 0) > self.most * self.api.per_page:
            self._divide()
        new = [(key, some) for key, some in found if key not in self.seen]
        self.seen.update(key for key, _ in new)
        return [result for _, some in new for result in some], page["passed_over"]

    def _divide(self):
        """Replace the gap after the first page by a gap for each season."""
        if self.most > 1:
            start = self.gaps[0][1] if self.api.by_number else 0
            self.gaps, self.spreading = [[season, start, None] for season in SEASONS], True

    def _ask(self, season, start, end, at):
        """Return the answer to one question in the form of the file."""
        answer, passed_over = self.api.ask(self.taxon, season, start, end, at), Counter()
        found = read_records(
            answer.records, lambda record: [(str(self.api.key(record)),
                                             self.api.read(record, passed_over))], passed_over)
        packed = base64.b64encode(zlib.compress(json.dumps(found).encode())).decode()
        return {"packed": packed, "passed_over": passed_over, "covered": answer.covered,
                "end": answer.end, "total": answer.total, "gaps": answer.gaps}


def is_repeated(value, known):
    """Return whether a JSON value is in the set `known`, to which it is added."""
    digest, count = sha256(json.dumps(value, sort_keys=True).encode()), len(known)
    known.add(digest)
    return len(known) == count


def own_words(body):
    """Return the first 200 characters of a server's message in an unexpected response."""
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    words = dig(said, "error") or dig(said, "message") or body
    words = words.decode("utf-8", "replace") if isinstance(words, bytes) else str(words)
    return " ".join(words.split())[:200]

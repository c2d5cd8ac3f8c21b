"""The interface of a source of photographs: how it reports results, ends and failures.

A search has pages. The page is the unit of progress: as soon as the source yields a `ResultPage`,
its results and `state` are on the disk, and the next run continues from there without loading that
page again. The outcome of a search is what it yields or raises:

    a page with results, `state` a value          there may be more: the next page is taken
    a page, `state` None                          the end; nothing found if no page had results
    UnknownName                                   the source has no such name: final
    NothingYet                                    the page has no results and says that it is still
                                                  being filled: asked again; the second time it
                                                  counts as the end
    SearchFailed                                  this search got no answer; others may
    SiteFailed                                    a fault of the site, not of this search: no
                                                  network, HTTP 429 or 5xx, a maintenance page
    SourceStopped                                 no further request in this run, such as a captcha

Failed searches are repeated after all others, and stored with time and reason. A source is stopped
after `searches.FAILURES_IN_A_ROW` failures without a successful search between them.
"""
from typing import NamedTuple


class SearchFailed(Exception):
    """A failed search, to be repeated later; the message is the reason."""


class UnknownName(Exception):
    """A source has no such name; the message lists alternatives."""


class NothingYet(SearchFailed):
    """A page without results that is not complete yet."""


class SiteFailed(SearchFailed):
    """A site that currently answers no request."""


class SourceStopped(SearchFailed):
    """A source that must not be used again in this run; the message is the reason."""


class ResultPage(NamedTuple):
    """One page of a search."""

    results: list  # dictionaries: `url` and any other column of `collected_tables.RESULT`
    state: object = None  # JSON value from which to continue after this page; None: the end
    passed_over: dict = {}  # reason -> records or photographs of this page that were not taken


class Source:
    """A source of photographs, found by name and perhaps by image.

    `terms` is {name: value} of everything besides the text that results depend on: a search with
    other terms is another search. `note` is a remark about the current search, "" if none. For the
    plan: `limits` says in words how often the site may be asked, `page_seconds` is the average time
    of a page, `usual_mb` the size of a photograph, `one_host` whether one host serves most of them.
    """

    terms, note, limits, page_seconds, usual_mb, one_host = {}, "", "", 1.0, 0.5, True
    similar = None  # or a method like `search`, given a found row instead of a name

    def search(self, name, state=None, earlier=()):
        """Yield the `ResultPage`s of a name; no request is made before the first is taken.

        `state` is that of the last page taken by an earlier run, None at first; `earlier` are the
        found rows of this search (columns `collected_tables.FOUND`) of the pages before. The caller
        stops taking pages when it has enough results.
        """
        raise NotImplementedError

    def page_count(self, kind, count):
        """Return how many pages `count` results take; `kind` is one of KINDS of the tables."""
        raise NotImplementedError

    def close(self):
        """Release resources; called after the last search, even if the run is interrupted."""


# ---- untrusted JSON: any value may be of any type ----

def dig(value, *keys):
    """Return the value in nested JSON objects under these keys, None if one is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def text_of(value):
    """Return a JSON value if it is a text, else ""."""
    return value if isinstance(value, str) else ""


def list_under(record, key):
    """Return the list under a key of a JSON object; raises KeyError if there is none."""
    if not isinstance(dig(record, key), list):
        raise KeyError(key)
    return record[key]


def read_records(records, read, passed_over):
    """Return the results that `read(record)` gives for each of a list of records of any JSON type.

    `read` returns or yields results. Records that it cannot read are skipped and counted in
    `passed_over`, a Counter, by reason.
    """
    results = []
    for record in records:
        try:
            results += list(read(record))
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            passed_over[f"record of an unexpected form: {describe_missing(error)}"] += 1
    return results


def describe_missing(error):
    """Return in words what a record lacks, from the error of reading it."""
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    return "a value of another type"

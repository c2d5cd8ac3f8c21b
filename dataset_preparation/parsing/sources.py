"""What a source of photographs must have, and how it reports results, ends and failures.

A search is paged. The page is the unit of progress: as soon as the source yields a `ResultPage`,
its results and `state` are on the disk, and the next run goes on from there, never loading that
page again. What happened is told by what a search yields or raises:

    a page with results, `state` a value          there may be more: the next page is taken
    a page, `state` None                          the end: nothing found where no page had results
    UnknownName                                   the source has no such name: final
    NothingYet                                    the page shows no results and says that it is
                                                  still being filled: asked again; the second time
                                                  it ends so, it counts as the end
    SearchFailed                                  this search got no answer; others may
    SiteFailed                                    the site got in the way, not this search: no
                                                  network, HTTP 429 or 5xx, a maintenance page
    SourceStopped                                 no further request in this run, such as a captcha

Failed searches wait until all others were asked, and are remembered with time and reason. A source
is stopped after `parsing.FAILURES_IN_A_ROW` failures without a search answered between them.
"""
from typing import NamedTuple


class SearchFailed(Exception):
    """A search that failed, for a later turn to repeat; the message is the reason."""


class UnknownName(Exception):
    """A source has no such name; the message names what it has instead."""


class NothingYet(SearchFailed):
    """A page without results that says it is not complete yet."""


class SiteFailed(SearchFailed):
    """A site that does not answer at present, whatever it is asked."""


class SourceStopped(SearchFailed):
    """A source that must not be used again in this run; the message is the reason."""


class ResultPage(NamedTuple):
    """One page of a search, as the site has answered it."""

    results: list  # dictionaries: `url` and any other column of `parsing_utils.RESULT`
    state: object = None  # JSON value from which to go on after this page; None: this is the end
    passed_over: dict = {}  # reason -> records or photographs of this page that were not taken


class Source:
    """A source of photographs, found by name and perhaps by image.

    `terms` is {name: value} of what results depend on besides the text of the search: a search of
    other terms is another search. `note` is what the present search has to remark, "" if nothing.
    `limits` says in a few words how often the site may be asked, `page_seconds` how long a page
    takes on average, `usual_mb` how large a photograph is, `one_host` whether one host serves most
    of them; all are printed in the plan, or counted in it.
    """

    terms, note, limits, page_seconds, usual_mb, one_host = {}, "", "", 1.0, 0.5, True
    similar = None  # or a method like `search`, given a found row instead of a name

    def search(self, name, state=None, earlier=()):
        """Yield the `ResultPage`s of a name; no request is made before the first is taken.

        `state` is that of the last page taken by an earlier run, None to begin; `earlier` are the
        found rows of this search (columns `parsing_utils.FOUND`) from the pages before it. The
        caller stops taking pages when it has enough results.
        """
        raise NotImplementedError

    def page_count(self, kind, count):
        """Return how many pages `count` results take; `kind` is that of `parsing_utils.KINDS`."""
        raise NotImplementedError

    def close(self):
        """Close what is open; called after the last search, also when the run is interrupted."""


# ---- JSON of strangers: any value may be of any type ----

def dig(value, *keys):
    """Return what stands in nested JSON objects under these keys, None where one is missing."""
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

    `read` returns or yields results. A record that it cannot read is counted in `passed_over`, a
    Counter, with what is wrong, and costs no other record.
    """
    results = []
    for record in records:
        try:
            results += list(read(record))
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            passed_over[f"record of an unexpected form: {describe_missing(error)}"] += 1
    return results


def describe_missing(error):
    """Return what a record lacks by the error of reading it, in words that people read."""
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    return "a value of another type"

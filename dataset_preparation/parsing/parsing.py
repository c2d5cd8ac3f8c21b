"""Collect photographs of every plant of the class table; found.csv records their origin.

    python dataset_preparation/parsing/parsing.py --source inaturalist --limit_classes 5  # minutes
    python dataset_preparation/parsing/parsing.py                         # Yandex Images: hours

For each name: NAME_RESULTS photographs found by the Latin name and, if a source can search by
image, SIMILAR_RESULTS similar ones for each of the first SIMILAR_TO results. Run the same command
again to resume: no finished search is repeated and no saved photograph is downloaded twice. The
last line is `collected N photographs of K classes: <found.csv>`.

    python dataset_preparation/parsing/parsing.py --join OTHER_DIR

joins a folder that another machine has collected into COLLECTED_DIR.
"""
import importlib
import sys
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # repository root
import config
from dataset_preparation.parsing import collecting_report as report
from dataset_preparation.parsing.collected_tables import Tables
from dataset_preparation.parsing.connections import build_network_access
from dataset_preparation.parsing.host_schedule import HostLimits
from dataset_preparation.parsing.joining import join_folder
from dataset_preparation.parsing.photo_downloads import Downloads
from dataset_preparation.parsing.safe_download import Limits, guarded_web
from dataset_preparation.parsing.searches import Searches, Wanted
from dataset_preparation.parsing.source_settings import require_followed
from dataset_preparation.parsing.stopping import stopped_by_signal
from names import whole_number
from settings.command_line import next_command, shell_join
from utils import InputError, read_classes, run

# Name of a source -> its module, which has `build_source(web, s)`. It is imported only when the
# source is used, because Selenium is large.
SOURCES = {"yandex": "yandex_images_parser", "inaturalist": "inaturalist", "gbif": "gbif",
           "commons": "commons", "open_data": "open_data"}
# Limits of one response of a REST API; 200 observations of iNaturalist may have 12 MB.
RESPONSE_SECONDS, RESPONSE_MB = 300, 100


def main(argv=None):
    s, given = config.parse(argv, __file__, __doc__)
    require_followed(s, given, source_names(s))
    classes = choose_classes(read_classes(s.class_table, s.limit_classes), s.classes)
    sources = build_sources(s)
    wanted = Wanted(s.name_results, s.synonym_below, s.similar_to, s.similar_results, s.try_again)
    with stopped_by_signal():
        tables = Tables(s.collected_dir, s.licenses)
        if s.join:
            try:
                line = join_folder(tables, Path(s.join))
            finally:
                tables.save()
            print_ending(tables, classes, sources, wanted, given)
            print(line)
            return
        report.print_plan(sources, classes, wanted, tables, s)
        collect(sources, classes, wanted, tables, build_downloads(tables, s), given)
    unanswered = report.count_unanswered(tables, classes, sources)
    if any(unanswered.values()):
        raise InputError(f"{report.describe_counts(unanswered)}; run the same command again to "
                         "resume")


def collect(sources, classes, wanted, tables, downloads, given):
    """Search and download; write the tables and print the results, even after an error."""
    progress = report.Progress(len(classes) * len(sources), downloads)
    try:
        chosen = {plant.latin for plant in classes}
        downloads.add([row for row in tables.found.values()
                       if row["class"] in chosen and row["source"] in sources])
        for name, source in sources.items():
            progress.begin(source, lambda name=name, source=source: report.pages_left(
                source, report.searches_left(name, source, classes, wanted, tables)))
            with closing(source):
                Searches(name, source, wanted, tables, downloads, progress).run(classes)
        progress.end()
        downloads.wait(progress.tick)
    finally:
        downloads.stop()
        tables.save()  # before printing, which fails if the terminal was closed
        progress.close()
        print_ending(tables, classes, sources, wanted, given, downloads.counts["replaced"])


def print_ending(tables, classes, sources, wanted, given, replaced=0):
    """Print the results, the next command and the last line."""
    files = report.print_results(tables, classes, sources, wanted, replaced)
    print(f"next: {what_next(tables, classes, sources, files, given)}")
    print(f"collected {len(files):,} photographs of {len(classes)} classes: "
          f"{tables.folder / 'found.csv'}", flush=True)


def what_next(tables, classes, sources, files, given):
    """Return what to run next: the same again while something is missing that may be there."""
    again = any(row["status"] in ("new", "failed") or row["ask_again"]
                for plant in classes for row in tables.of_class[plant.latin])
    if again or any(report.count_unanswered(tables, classes, sources).values()):
        return shell_join(["python", *(
            word for before, word in zip(["", *sys.argv], sys.argv, strict=False)
            if "--join" not in (before, word.partition("=")[0]))])
    if not files:
        return "another --source or other settings: there is no photograph to clean"
    return next_command("dataset_preparation/cleaning/cleaning.py", given)


def build_web(s, seconds, megabytes):
    """Return the `Web` of the settings; a response may take this many seconds and megabytes."""
    limits = Limits(s.connect_seconds, s.read_seconds, seconds, int(megabytes * 1e6))
    return guarded_web(limits, s.private_hosts, s.contact, s.host_connections,
                       build_network_access(s))


def build_downloads(tables, s):
    """Return the running `Downloads` of the settings."""
    budgets = ((60, s.host_gb_per_hour * 1e9), (24 * 60, s.host_gb_per_day * 1e9))
    limits = HostLimits(s.host_connections, s.host_delay, s.photo_attempts, budgets,
                        60 * s.patience_minutes)
    web = build_web(s, s.photo_seconds, s.photo_mb)
    return Downloads(web, tables, limits, s.photo_megapixels, s.threads, s.try_again)


def source_names(s):
    """Return the names of the chosen sources."""
    return [name.strip() for name in s.source.split(",")]


def build_sources(s):
    """Return {name: source} of the settings; raises InputError before the first request."""
    web = build_web(s, RESPONSE_SECONDS, RESPONSE_MB)
    sources = {}
    for name in source_names(s):
        module = importlib.import_module(f"dataset_preparation.parsing.{SOURCES[name]}")
        sources[name] = module.build_source(web, s)
    return sources


def choose_classes(classes, text):
    """Return the classes that a text such as "Rosa canina,10-19" names; all of them for ""."""
    if not text.strip():
        return classes
    chosen = set()
    for part in (part.strip() for part in text.split(",")):
        first, _, last = part.partition("-")
        first, last = whole_number(first), whole_number(last or first)
        if first is not None and last is not None:
            named = {plant.label for plant in classes if first <= plant.label <= last}
        else:
            named = {plant.label for plant in classes if plant.latin.lower() == part.lower()}
        if not named:
            raise InputError(f"CLASSES has {part!r}, which is neither a Latin name of the class "
                             'table nor a range of its labels; write it as "Rosa canina,10-19"')
        chosen |= named
    return [plant for plant in classes if plant.label in chosen]


if __name__ == "__main__":
    run(main)

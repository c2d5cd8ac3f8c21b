"""Former forms of photographs, and what replaced them.

Collecting replaces a small copy by the original once that arrives, and viewers rewrite files.
The photograph is the same, its SHA-256 is another. `former_photographs.csv` maps the former SHA-256
to the present one, so that decisions, sides and names stay in force.
"""
from names import present_name
from utils import read_table, write_table

TABLE = "former_photographs.csv"
COLUMNS = ("class",  # Latin name of the class it was collected for
           "sha256", "file",  # as they were; file below <COLLECTED_DIR>/images
           "now",  # SHA-256 of what replaced it, which may be replaced itself; "" if not recognised
           "fingerprint")


def read_former(folder, renamed):
    """Return {(class, SHA-256): row} of the table in <CLEANED_DIR>, {} if there is none.

    `renamed` maps the `look` of a former name of a class to the current name.
    """
    table = folder / TABLE
    rows = read_table(table, COLUMNS) if table.is_file() else ()
    rows = [{**row, "class": present_name(row["class"], renamed)} for row in rows]
    return {(row["class"], row["sha256"]): row for row in rows}


def latest_forms(former):
    """Return {(class, SHA-256): SHA-256 now} of the replaced photographs of `read_former`.

    What is collected has no row in `former`, so a chain of replacements has an end.
    """
    found = {}
    for key, row in former.items():
        content = row["sha256"]
        while following := former.get((key[0], content), {}).get("now"):
            content = following
        if content != row["sha256"]:
            found[key] = content
    return found


def read_latest(folder, renamed):
    """Return the `latest_forms` of the table in <CLEANED_DIR>, see `read_former`."""
    return latest_forms(read_former(folder, renamed))


def by_content(latest):
    """Return {SHA-256: SHA-256 now} of `latest_forms`, whatever the class."""
    return {content: now for (_, content), now in sorted(latest.items())}


def write_former(folder, former):
    """Write the table, unless there is neither a row nor a table."""
    if former or (folder / TABLE).is_file():
        write_table(folder / TABLE, COLUMNS, [former[key] for key in sorted(former)])

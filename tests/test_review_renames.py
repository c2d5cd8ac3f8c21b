"""The review shows and makes decisions about a class that has a new name."""
from tests.conftest import NAMES
from tests.reviewing import PLAIN, asked, make_cleaned, reviewing, rows_of
from utils import write_table


def test_decisions_about_a_renamed_class_are_shown(tmp_path):
    """Before and after cleaning has run under the new name; found by a name in `also`."""
    folder = make_cleaned(tmp_path)
    rows, new = rows_of(folder), "Rosa nova"
    with reviewing(folder) as page:
        assert page.decide(asked(rows[PLAIN], "reject")).ok
    lines = [f"{label},{new if name == NAMES[1] else name},,,{name if name == NAMES[1] else ''}"
             for label, name in enumerate(NAMES)]
    text = "\n".join(["label,latin,russian,english,also", *lines, ""])
    (folder / "classes.csv").write_text(text, encoding="utf-8")
    with reviewing(folder) as page:
        assert page.views()["sheet", ""]["reviewed"] == 1
        assert page.decide(asked(rows[f"{NAMES[1]}/003.jpg"], "keep")).ok
        assert page.views()["sheet", ""]["reviewed"] == 2
    after = list(rows.values())
    for row in after:
        if row["class"] == NAMES[1]:
            row.update({"class": new, "label_class": new})
    write_table(folder / "cleaned/cleaned.csv", after[0].keys(), after)
    with reviewing(folder) as page:
        assert page.views()["sheet", new]["reviewed"] == 2

"""Licences: how they are read from what publishers write, and which are allowed."""
import pytest

from dataset_preparation.licenses import is_allowed, read_license, strictest


@pytest.mark.parametrize(("text", "code"), [
    ("http://creativecommons.org/licenses/by-nc/4.0/legalcode", "cc-by-nc-4.0"),
    ("https://creativecommons.org/licenses/by-sa/3.0/deed.de", "cc-by-sa-3.0"),
    ("creativecommons.org/licenses/by-nc-nd/3.0/igo", "cc-by-nc-nd-3.0"),
    ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0"),
    ("http://creativecommons.org/publicdomain/mark/1.0/", "pd"),
    ("Attribution-NonCommercial 4.0 International (CC BY-NC 4.0)", "cc-by-nc-4.0"),
    ("Creative Commons Attribution Share Alike", "cc-by-sa"),
    ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "cc0"),
    ("CC_BY_4_0", "cc-by"), ("cc-by-nc-nd", "cc-by-nc-nd"), ("CC0_1_0", "cc0"),
    ("CC BY-SA-NC", "cc-by-nc-sa"), ("CC-BY-NC", "cc-by-nc"), ("Public Domain", "pd"),
    # a holder's name before or after
    ("A. Author (cc-by-sa)", "cc-by-sa"), ("(c) Museum - CC BY-NC", "cc-by-nc"),
    ("(c) samroom, some rights reserved (CC BY-NC)", "cc-by-nc"),
    ("Photo by X. Y., CC0", "cc0"), ("CC BY Museum für Naturkunde", "cc-by"),
    ("Research Centre for Ecology (CC BY 4.0)", "cc-by-4.0"), ("CC BY © 田中", "cc-by"),
    ("(c) samroom, some rights reserved (CC BY-NC), uploaded by samroom", "cc-by-nc"),
    ("© 2020 Anna Müller, CC BY 4.0", "cc-by-4.0"), ("CC BY 4.0 (A. Müller)", "cc-by-4.0"),
    ("CC BY-NC 4.0. Photo by Anna.", "cc-by-nc-4.0"), ("George Sand, CC BY-NC 4.0", "cc-by-nc-4.0"),
    # sentences of GBIF's publishing tool, statements of Commons
    ("This work is licensed under a Creative Commons Attribution Non Commercial (CC-BY-NC) 4.0 "
     "License.", "cc-by-nc-4.0"), ("Licence: CC BY v4.0", "cc-by-4.0"),
    ("CC_BY_NC_4_0", "cc-by-nc"),
    ("cc-by-sa-3.0-de; CC BY-SA 3.0 de; https://creativecommons.org/licenses/by-sa/3.0/de/deed.en",
     "cc-by-sa-3.0"), ("pd; Public domain", "pd"), ("cc-by-sa-3.0-migrated", "cc-by-sa-3.0"),
    ("https://creativecommons.org/licenses/by-nc-sa/4.0/legalcode.de", "cc-by-nc-sa-4.0"),
    # digits and parts joined to a code, letters that only look like those of a code
    ("CC BY-NC4.0", "cc-by-nc-4.0"), ("CC-BY-NCND 4.0", "cc-by-nc-nd-4.0"),
    ("CC BY-SA4.0", "cc-by-sa-4.0"), ("CC BY-NC-ND4.0", "cc-by-nc-nd-4.0"),
    ("CC BY ND4", "cc-by-nd"), ("CC BY NCSA", "cc-by-nc-sa"), ("CCBYNCND", "cc-by-nc-nd"),
    ("CC BY N.C.", "cc-by-nc"), ("CC BY NoDerivates", "cc-by-nd"), ("CC BY-N\u0421", "cc-by-nc"),
    ("\u0421\u0421 BY-\u039dC", "cc-by-nc"), ("\uff23\uff23 \uff22\uff39-NC", "cc-by-nc"),
    ("CC BY-N\u200bC", "cc-by-nc"),
    # the strictest of several
    ("CC BY 4.0; CC BY-NC 4.0", "cc-by-nc-4.0"), ("CC BY, NC", "cc-by-nc"),
    ("Creative Commons Attribution, NonCommercial", "cc-by-nc"),
    ("CC-BY 4.0 non-commercial", "cc-by-nc-4.0"), ("cc-by, no derivatives", "cc-by-nd"),
    ("CC0 or CC BY 3.0", "cc-by-3.0"), ("CC BY-NC-SA (non-commercial use only)", "cc-by-nc-sa")])
def test_licences_are_read_from_what_publishers_write(text, code):
    assert read_license(text) == code


@pytest.mark.parametrize("text", [
    "CC", "", None, 5, ["cc0"], "© all rights reserved", "CC BY; all rights reserved",
    "see http://example.org/by-nc", "not CC0", "CC BY?", "Images (c) University; text CC BY",
    "https://creativecommons.org/licenses/by/4.0/legalcode; no reuse without permission",
    "CC BY 4.0 https://museum.example/rights", "CC BY unless noted otherwise", "by-nc",
    "CC BY but ask the author", "CC BY, commercial use requires a fee", "CC BY (nur Text)",
    "CC BY until 2020", "CC BY (thumbnail)", "CC BY 4.0, see terms", "CC BY, личное использование",
    "CC BY niet-commercieel", "CC BY fins não comerciais", "CC BY icke kommersiellt",
    "CC BY ikke-kommersiell", "CC BY nekomerční užití", "CC BY niekomercyjne", "CC BY 非営利",
    "CC BY ingen bearbetning", "CC BY для учебных целей", "CC BY 4.0 NoAI", "CC BY (research)",
    "CC BY for research", "CC BY, all rights", "CC BY, кроме снимков", "CC0 (metadata)",
    "CC BY; alle Rechte vorbehalten",
    # unknown words: they may restrict the licence
    "CC BY 4.0 SinDerivadas", "CC BY NonCommerical 4.0", "CC BY-NonComm", "CC BY 4.0 NonComm",
    "CC BY PasDeModification", "CC BY GeenAfgeleideWerken", "CC BY IngaBearbetningar",
    "CC BY SemDerivações", "CC BY senza opere derivate", "CC BY ohne Bearbeitung",
    "CC BY CompartirIgual", "CC BY derivative works disallowed", "CC BY, SinDerivadas",
    "CC BY (Compartir Igual)", "CC BY, Inga Bearbetningar", "SinDerivadas (CC BY 4.0)",
    "PasDeModification CC BY", "CC BY by NonComm", "CC BY N. C.", "CC BY 継承", "CC BY 田中",
    "https://creativecommons.org/licenses/by/4.0-nc", "CC BY 4.0 НЕ", "CC BY" + 100_000 * "a",
    "CC BY for all who have read these terms and agreed to all that is written in them"])
def test_text_that_is_not_understood_whole_is_no_licence(text):
    assert read_license(text) == ""


def test_versions_of_an_allowed_licence_are_allowed():
    assert is_allowed("cc-by-4.0", ("cc-by",)) and is_allowed("cc0", ("cc0",))
    assert not is_allowed("cc-by-nc-4.0", ("cc-by",)) and not is_allowed("", ("cc0",))


def test_of_several_records_of_one_photograph_the_strictest_licence_counts():
    assert strictest(["cc-by-4.0", "cc-by-nc"]) == "cc-by-nc-4.0"
    assert strictest(["cc-by-sa", "cc-by-nd"]) == "cc-by-nd"
    assert strictest(["cc0", ""]) == strictest([]) == ""

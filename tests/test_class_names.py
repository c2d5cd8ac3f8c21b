"""Names of classes that are stored in different ways, look alike, or mark hybrids."""
import unicodedata

import pytest

from dataset_preparation.cleaning.cleaning import list_photographs
from dataset_preparation.parsing.scientific_names import name_key, spellings
from names import class_of_folder, slug
from tests.conftest import ROOT, write_classes
from utils import InputError, read_classes

HYBRIDS = ["Mentha × piperita", "Mentha piperita", "Isoëtes lacustris", "Kalanchoë"]
CYRILLIC_A = "\u0430"


def test_folders_match_however_accents_are_stored(tmp_path):
    for form in ("NFC", "NFD"):
        names = [unicodedata.normalize(form, name) for name in HYBRIDS]
        classes = read_classes(write_classes(tmp_path / f"{form}.csv", names))
        assert [plant.latin for plant in classes] == names  # as decisions and tables have them
        for label, name in enumerate(HYBRIDS):
            for written in (name, unicodedata.normalize("NFD", name), name.replace(" ", "_")):
                assert class_of_folder(written, classes).label == label
    assert slug("Isoe\u0308tes lacustris") == "isoëtes_lacustris"


def test_spaces_of_any_kind_are_plain_ones_and_invisible_letters_are_none(tmp_path):
    names = ["Rosa\u00a0canina", " Typha \u2009lati\u00adfolia"]
    table = write_classes(tmp_path / "classes.csv", names)
    assert [plant.latin for plant in read_classes(table)] == ["Rosa canina", "Typha latifolia"]


@pytest.mark.parametrize("name", ["Con", "aux.x", "LPT1", "Com²", "Rosa sp.", "a/b", ".hidden"])
def test_a_name_that_no_folder_of_windows_has_is_refused_with_its_line(tmp_path, name):
    with pytest.raises(InputError, match="line 3: .* cannot be a folder name"):
        read_classes(write_classes(tmp_path / "classes.csv", ["Aux niger", name]))


def test_a_hybrid_is_another_class_than_the_species_without_its_sign(tmp_path):
    classes = read_classes(write_classes(tmp_path / "classes.csv", HYBRIDS))
    for written in ("Mentha × piperita", "Mentha ×piperita", "Mentha x piperita"):
        assert class_of_folder(written, classes).label == 0
    assert class_of_folder("Mentha piperita", classes).label == 1
    assert slug("Mentha × piperita") == "mentha_x_piperita"


def test_cleaning_lists_a_look_alike_folder_under_its_class(tmp_path, capsys):
    classes = read_classes(write_classes(tmp_path / "classes.csv", ["Rosa canina", "Kalanchoë"]))
    for name in (f"Ros{CYRILLIC_A} canina", unicodedata.normalize("NFD", "Kalanchoë")):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "photo.jpg").write_bytes(b"")
    listed = list_photographs(tmp_path / "images", classes, 2)
    assert sorted(listed.values()) == ["Kalanchoë", "Rosa canina"]
    assert capsys.readouterr().err == ""


def test_cleaning_knows_folders_by_any_name_of_one_class(tmp_path, capsys):
    table = tmp_path / "classes.csv"
    table.write_text("label,latin,russian,english,also\n"
                     "0,Tussilago farfara,мать-и-мачеха,,жёлтый подбел\n"
                     "1,Rosa canina,роза,dog rose,\n2,Rosa gallica,роза,,Rosa rubra\n", "utf-8")
    classes = read_classes(table)
    folders = ("Мать и мачеха", "Dog rose", "rosa_rubra", "Роза", "Желтый Подбел", ".hidden")
    for name in folders:
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="Dog rose is one level too high"):
        list_photographs(tmp_path / "images", classes, 3)
    (tmp_path / "images").mkdir()
    for name in folders:
        (tmp_path / name).rename(tmp_path / "images" / name)
    assert list_photographs(tmp_path / "images", classes, 3) == {
        "Dog rose/1.jpg": "Rosa canina", "rosa_rubra/1.jpg": "Rosa gallica",
        "Мать и мачеха/1.jpg": "Tussilago farfara", "Роза/1.jpg": "Роза",
        "Желтый Подбел/1.jpg": "Tussilago farfara"}
    printed = capsys.readouterr().err
    assert "has a name of 2 classes, Rosa canina, Rosa gallica" in printed
    assert "1 hidden folders" in printed


def test_two_names_that_look_alike_are_told_by_their_code_points(tmp_path):
    names = ["Rosa canina", "Rosa gallica", f"Ros{CYRILLIC_A} canina"]
    with pytest.raises(InputError, match="line 4: .*line 2.*U[+]0430 CYRILLIC SMALL LETTER A"):
        read_classes(write_classes(tmp_path / "classes.csv", names))
    with pytest.raises(InputError, match="line 3: .*listed twice, first in line 2; delete"):
        read_classes(write_classes(tmp_path / "classes.csv", ["Rosa canina", "rosa_canina"]))


def test_the_page_of_cautions_lists_the_classes_that_have_one():
    classes = read_classes(ROOT / "data/crimean_plants.csv")
    noted = {plant.latin for plant in classes if plant.note_en and plant.note_ru}
    assert noted == {plant.latin for plant in classes if plant.note_en or plant.note_ru}
    assert {plant.latin for plant in classes if plant.family in (
        "Amanitaceae", "Hydnaceae", "Cantharellaceae", "Orchidaceae", "Taxaceae")} <= noted
    text = (ROOT / "data/cautions.md").read_text("utf-8")
    assert noted == {plant.latin for plant in classes if f"*{plant.latin}*" in text}
    assert f"The {len(classes) - len(noted)} classes without a note" in text


@pytest.mark.parametrize(("key", "names"), [
    ("mentha piperita", ["Mentha × piperita", "Mentha x piperita", "Mentha ×piperita L.",
                         "mentha piperita", "MENTHA X PIPERITA", "Mentha Piperita"]),
    ("pinus nigra pallasiana", ["Pinus nigra subsp. pallasiana", "Pinus nigra ssp. pallasiana",
                                "Pinus nigra J.F.Arnold subsp. pallasiana (Lamb.) Holmboe",
                                "Pinus nigra var. pallasiana", "Pinus nigra pallasiana"]),
    ("rosa canina", ["Rosa canina L.", "Rosa  canina", "Rosa canina auct. non L.",
                     "Rosa canina L. s.l.", "Rosa canina agg.", "Rosa canina de la Foo & d'Urv."]),
    ("rosa", ["Rosa", "Rosa L.", "Rosa Tourn. ex L.", "Rosa sp."]),
    ("plantago media", ["Plantago media L. f.", "Plantago media L.f."]),
    ("rosa canina alba", ["Rosa canina L. f. alba (Foo) Bar"]),
    ("salix alba × fragilis", ["Salix alba × fragilis", "Salix alba L. x fragilis L."]),
    ("amarcrinum", ["× Amarcrinum A.Foo ex B."]), ("isoetes lacustris", ["Isoëtes lacustris"]),
    ("malva loca", ["Malva Loca"]), ("rosa 'golden glory'", ["Rosa 'Golden Glory'"])])
def test_all_spellings_of_a_scientific_name_have_one_key(key, names):
    assert {name_key(name) for name in names} == {key}


def test_the_names_of_the_crimean_plants_are_asked_for_as_they_are():
    """Only the two synonyms with a rank have a second spelling."""
    plants = read_classes(ROOT / "data/crimean_plants.csv")
    names = [name for plant in plants for name in (plant.latin, *plant.also)]
    assert len(plants) == 50 and len({name_key(name) for name in names}) == len(names)
    for name in names:
        assert spellings(name)[0] == name
        if len(spellings(name)) > 1:
            assert name in ("Capparis spinosa var. herbacea", "Capparis sicula subsp. herbacea")
            assert spellings(name)[1:] == [f"Capparis {name.split()[1]} herbacea"]

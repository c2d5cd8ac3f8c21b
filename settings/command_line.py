"""Merge config.py, a settings file and flags into the settings of one script, and check them."""
import argparse
import difflib
import json
import os
import re
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import settings.startup_errors  # noqa: F401 before utils, which imports third-party packages
from settings.scripts import names_of, scripts_with, settings_of
from settings.table import HINTS, KINDS
from utils import warn

ROOT = Path(__file__).resolve().parents[1]
NOT_SETTINGS = ("ROOT", "GROUPS", "TRAINING_GROUPS")  # other constants of config.py
METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
MANUAL = ("Edit config.py, give flags, or keep settings in a JSON file. A flag wins over the file, "
          "the file over config.py.")


def parse(values, argv, script, description, arguments=()):
    """Return (settings of a script as lower-case attributes, {NAME: value} of those given).

    `values` are the globals of config.py; "given" are those of flags and of the `--settings` file.
    Flags win over the file, the file over config.py. `arguments`, a pair (name, help), adds one or
    more positional arguments, which the namespace has as a list under that name. Exits with status
    2 if a setting is unknown, belongs to another script, or has a value that is not allowed.
    """
    script = Path(script).name
    parser = build_parser(values, script, description, arguments)
    require_settings(values, parser)
    argv = list(map(str, sys.argv[1:] if argv is None else argv))
    end = argv.index("--") if arguments and "--" in argv else len(argv)  # only files after it
    flags = vars(parser.parse_intermixed_args(
        [spell_flag(word, script, parser) if word.startswith("--") else word
         for word in argv[:end]]))
    file = flags.pop("settings")
    rest = {name: flags.pop(name) + argv[end + 1:] for name in arguments[:1]}
    if [] in rest.values():
        parser.error(f"the following arguments are required: {arguments[0]}")

    default = {name: check(name, values[name], ROOT, "config.py", parser)
               for name in names_of(script)}
    given = {name: check(name, value, Path.cwd(), file, parser)
             for name, value in read_file(file, parser).items() if name in default}
    for flag, value in flags.items():
        kind = KINDS[flag.upper()]
        try:
            given[flag.upper()] = value if kind.type is bool else kind.read(value, Path.cwd())
        except ValueError as error:
            parser.error(f"--{flag}: {error}")
    settings = {name.lower(): value for name, value in {**default, **given}.items()}
    return SimpleNamespace(**settings, **rest), given


def build_parser(values, script, description, arguments):
    """Return the parser of a script's settings; their help texts are the comments of config.py."""
    usage = "%(prog)s [--setting value ...]" + (f" {arguments[0]} ..." if arguments else "")
    parser = argparse.ArgumentParser(
        description=description, epilog=MANUAL, allow_abbrev=False,
        usage=f"{usage}   (--help lists the settings)", formatter_class=partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=34,
            width=min(shutil.get_terminal_size().columns - 2, 120)))
    if arguments:
        parser.add_argument(arguments[0], nargs="*", help=arguments[1])
    parser.add_argument("--settings", type=Path, metavar="FILE", help="JSON file {setting: value}")
    comments = read_comments(Path(values["__file__"]).read_text("utf-8"))
    for heading, names in settings_of(script).items():
        group = parser.add_argument_group(heading)
        for name in names:
            kind, text = KINDS[name], comments.get(name) or KINDS[name].describe()
            options = {"action": argparse.BooleanOptionalAction} if kind.type is bool else {
                "metavar": "A,B" if kind.several else METAVARS[kind.type]}
            text = f"{text} [{show(values.get(name))}]".replace("%", "%%")
            group.add_argument(f"--{name.lower()}", default=argparse.SUPPRESS, help=text, **options)
    return parser


def show(value):
    """Return a value as a help page shows it: paths inside the repository relative to it."""
    inside = isinstance(value, Path) and value.is_relative_to(ROOT)
    return value.relative_to(ROOT) if inside else value


def check(name, value, folder, source, parser):
    """Return the value of a setting in its type; exit if its kind does not allow it."""
    try:
        return KINDS[name].check(value, folder)
    except ValueError as error:
        parser.error(f"{source}, {name if source == 'config.py' else name.lower()}: {error}")


def next_command(script, given):
    """Return the command that runs a script next, with the settings given that it takes, too.

    `given` is what `parse` returns.
    """
    words = []
    for name in names_of(Path(script).name):
        value = given.get(name)
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name.lower()}")
        elif value is not None:
            several = isinstance(value, tuple)
            words += [f"--{name.lower()}", ",".join(map(str, value)) if several else value]
    return script_command(script, *words)


def script_command(script, *arguments):
    """Return the command that runs a script, a path below the repository, with these arguments.

    Paths below the working directory are shown as a person would type them. In the root of a disk,
    below which everything is, they stay absolute.
    """
    here = Path.cwd()

    def is_below(word):
        return isinstance(word, Path) and here != Path(here.anchor) and word.is_relative_to(here)
    return shell_join(["python", *(word.relative_to(here) if is_below(word) else word
                                   for word in (ROOT / script, *arguments))])


def shell_join(words):
    """Return a command as one types it in this system's shells; Windows has two."""
    if os.name != "nt":
        return shlex.join(map(str, words))
    # PowerShell makes a list of a,b and a comment of #1; cmd ends the command at &
    return " ".join(word if re.fullmatch(r"[\w.:/\\=+-]+", word) else f'"{word}"'
                    for word in map(str, words))


# ---- names ----

def spell_flag(word, script, parser):
    """Return a flag, with its `=value` if it has one, spelled as the parser expects it.

    Hyphens count as underscores. Exits if a flag is unknown or belongs to another script.
    """
    flag, equals, value = word[2:].partition("=")
    negated = flag.lower().startswith(("no-", "no_"))
    name = flag[3 if negated else 0:].replace("-", "_").upper()
    if name in ("SETTINGS", "HELP"):
        return word
    if name not in KINDS:
        parser.error(f"unknown flag --{flag}{suggest(name, names_of(script), '--{}')}")
    if name not in names_of(script):
        parser.error(f"--{name.lower()} is not a setting of {script}; it belongs to "
                     f"{', '.join(scripts_with(name))}")
    return f"--{'no-' if negated else ''}{name.lower()}{equals}{value}"


def suggest(name, known, form):
    """Return "; " and a hint, or the known name closest to `name`; "" if none is close."""
    if name in HINTS:
        return f"; {HINTS[name]}"
    close = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {form.format(close[0].lower())}?" if close else ""


# ---- files ----

def require_settings(values, parser):
    """Warn of constants of config.py that are no settings; exit if a setting is missing."""
    missing = [name for name in KINDS if name not in values]
    if missing:
        parser.error(f"config.py has no setting {missing[0]}; add a line {missing[0]} = ...")
    constants = {name for name in values if name.isupper() and name[0] != "_"}
    for name in sorted(constants - {*KINDS, *NOT_SETTINGS}):
        warn(f"config.py: {name} is not a setting and has no effect{suggest(name, KINDS, '{}')}")


def read_file(path, parser):
    """Return {NAME: value} of a JSON file with settings of any script; exit on an unknown one."""
    if path is None:
        return {}
    try:
        entries = read_json(path.read_text("utf-8-sig"))
        if not isinstance(entries, dict):
            raise ValueError("expected a JSON object, {setting: value}")
        settings = {name.upper(): value for name, value in entries.items()}
        for name in sorted(settings.keys() - KINDS.keys()):
            raise ValueError(f"unknown setting {name.lower()}{suggest(name, KINDS, '{}')}")
    except (OSError, ValueError, RecursionError) as error:
        parser.error(f"--settings {path}: {getattr(error, 'strerror', None) or error}")
    return settings


def read_json(text):
    """Return what a text in JSON contains; raise ValueError that says where it is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f'the file is not JSON, as {{"num_epochs": 5}} is: line {error.lineno}, '
                         f"column {error.colno}: {error.msg}") from None


def read_comments(text):
    """Return {NAME: comment at the end of its line} of the assignments in Python source."""
    return dict(re.findall(r"(?m)^([A-Z]\w*) *=.*?\s# *(.*)$", text))

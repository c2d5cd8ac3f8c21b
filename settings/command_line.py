"""From config.py, a settings file and flags to the settings of one script, each checked in the same way."""
import argparse
import difflib
import io
import json
import sys
import tokenize
from pathlib import Path
from types import SimpleNamespace

from settings.scripts import scripts_with, settings_of
from settings.table import KINDS, RENAMED
from utils import warn

ROOT = Path(__file__).resolve().parents[1]
METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
NOT_SETTINGS = ("ROOT", "GROUPS", "TRAINING_GROUPS")  # other constants of config.py
MANUAL = "config.py describes every setting; edit it, or give --settings FILE and flags, which win."


def parse(values, argv, script, description, arguments=()):
    """Return (settings of a script as attributes in lower case, {NAME: value} of those given).

    `values` are the globals of config.py; given are those of flags and of the `--settings` file. A
    flag wins over the file, the file over config.py. With `arguments`, a (name, help) of what else
    the script takes, at least one, the namespace has that name too: a list of texts. Exits with
    status 2 where a setting is unknown, belongs to another script, or has a value that its kind
    does not allow.
    """
    script = Path(script).name
    parser = build_parser(values, script, description, arguments)
    require_settings(values, parser)
    taken = {name: KINDS[name] for names in settings_of(script).values() for name in names}
    flags = vars(parser.parse_intermixed_args(normalise(argv, script, parser)))
    file = flags.pop("settings")
    rest = {name: flags.pop(name) for name in arguments[:1]}

    before = {name: check(name, values[name], ROOT, "config.py", parser) for name in taken}
    chosen = {name: check(name, value, Path.cwd(), file, parser)
              for name, value in read_file(file, parser).items() if name in taken}
    for flag, text in flags.items():
        name = flag.upper()
        read = KINDS[name].check if isinstance(text, bool) else KINDS[name].read
        try:
            chosen[name] = read(text, Path.cwd())
        except ValueError as error:
            parser.error(f"--{flag}: {error}")
    after = {name.lower(): value for name, value in {**before, **chosen}.items()}
    return SimpleNamespace(**after, **rest), chosen


def build_parser(values, script, description, arguments):
    """Return the parser of the settings a script takes; their help is the comments of config.py."""
    usage = "%(prog)s [--setting value ...]" + (f" {arguments[0]} ..." if arguments else "")
    parser = argparse.ArgumentParser(
        description=description, epilog=MANUAL, allow_abbrev=False,
        usage=f"{usage}   (--help lists the settings)", formatter_class=wide_formatter)
    if arguments:
        parser.add_argument(arguments[0], nargs="+", help=arguments[1])
    parser.add_argument("--settings", type=Path, metavar="FILE", help="JSON file {setting: value}")
    comments = read_comments(Path(values["__file__"]).read_text("utf-8"))
    for heading, names in settings_of(script).items():
        group = parser.add_argument_group(heading)
        for name in names:
            kind, help_text = KINDS[name], comments.get(name) or KINDS[name].describe()
            options = {"action": argparse.BooleanOptionalAction} if kind.type is bool else {
                "metavar": "A,B" if kind.several else METAVARS[kind.type]}
            group.add_argument(f"--{name.lower()}", default=argparse.SUPPRESS, **options,
                               help=f"{help_text} [{shown(values.get(name))}]".replace("%", "%%"))
    return parser


def shown(value):
    """Return a value as a help page shows it: paths of the repository without its own path."""
    inside = isinstance(value, Path) and value.is_relative_to(ROOT)
    return value.relative_to(ROOT) if inside else value


def wide_formatter(prog):
    """Return the formatter of a help page: as wide as 120 columns, most settings on one line."""
    width = argparse.HelpFormatter(prog)._width
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=34, width=min(width, 120))


def normalise(argv, script, parser):
    """Return the arguments with flags spelled as config.py spells settings; exit for another script's flag.

    A hyphen counts as an underscore; a name that a setting had before stands for its new one.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    end = argv.index("--") if "--" in argv else len(argv)
    return [flag_of(word, script, parser) if word.startswith("--") else word
            for word in map(str, argv[:end])] + argv[end:]


def flag_of(word, script, parser):
    """Return one flag, with its `=value` if it has one, in the spelling of this script's parser."""
    flag, equals, value = word[2:].partition("=")
    off = flag.lower().startswith(("no-", "no_"))
    name = flag[3 if off else 0:].replace("-", "_").upper()
    if name in ("SETTINGS", "HELP"):
        return word
    name = current_name(name, f"--{flag}")
    if name not in KINDS:
        close = difflib.get_close_matches(name, [one for names in settings_of(script).values() for one in names], 1)
        parser.error(f"unknown flag --{flag}" + (f"; did you mean --{close[0].lower()}?" if close else ""))
    if name.lower() not in parser_flags(parser):
        parser.error(f"--{name.lower()} is not a setting of {script}; it belongs to {', '.join(scripts_with(name))}")
    return f"--{'no-' if off else ''}{name.lower()}{equals}{value}"


def parser_flags(parser):
    """Return the names of the settings a parser knows."""
    return {action.dest for action in parser._actions}


def current_name(name, where):
    """Return the name of today of a setting; warn where an earlier one was used."""
    if name in RENAMED:
        warn(f"{where}: {name.lower()} is now called {RENAMED[name].lower()}; use that name, the old one goes away")
    return RENAMED.get(name, name)


def require_settings(values, parser):
    """Take over values under earlier names; exit where config.py lacks a setting or holds an unknown one."""
    for old in [name for name in RENAMED if name in values]:
        values[current_name(old, "config.py")] = values.pop(old)
    missing = [name for name in KINDS if name not in values]
    if missing:
        parser.error(f"config.py has no line for {missing[0]}; it needs one, such as {missing[0]} = ...")
    for name in values:
        if name.isupper() and not name.startswith("_") and name not in KINDS and name not in NOT_SETTINGS:
            close = difflib.get_close_matches(name, KINDS, 1)
            warn(f"config.py sets {name}, which is no setting" + (f"; did you mean {close[0]}?" if close else ""))


def check(name, value, folder, where, parser):
    """Return the value of a setting in its type; exit where its kind does not allow it."""
    try:
        return KINDS[name].check(value, folder)
    except ValueError as error:
        parser.error(f"{where}, {name if where == 'config.py' else name.lower()}: {error}")


def read_file(path, parser):
    """Return {NAME: value} of a JSON settings file, of any script's settings; exit where it cannot be read."""
    if path is None:
        return {}
    try:
        entries = json.loads(path.read_text("utf-8"))
        if not isinstance(entries, dict):
            raise ValueError("expected a JSON object, {setting: value}")
        chosen = {current_name(name.upper(), path): value for name, value in entries.items()}
        if unknown := sorted(set(chosen) - set(KINDS)):
            close = difflib.get_close_matches(unknown[0], KINDS, 1)
            raise ValueError(f"unknown setting {unknown[0].lower()}"
                             + (f"; did you mean {close[0].lower()}?" if close else ""))
    except (OSError, ValueError) as error:
        parser.error(f"--settings {path}: {getattr(error, 'strerror', None) or error}")
    return chosen


def read_comments(text):
    """Return {NAME: comment at the end of its line} of the assignments in a Python file."""
    comments, name, words = {}, None, []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and name:
            comments[name] = token.string.lstrip("# ")
        elif token.type == tokenize.NEWLINE:
            name, words = None, []
        elif token.type not in (tokenize.NL, tokenize.COMMENT):
            words.append(token)
            if len(words) == 2 and token.string == "=" and words[0].start[1] == 0:
                name = words[0].string
    return comments

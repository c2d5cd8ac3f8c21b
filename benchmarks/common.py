"""What the benchmarks share: their flags, running the real scripts, and the lines that state a figure."""
import argparse
import operator
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPARISONS = {">=": operator.ge, "<=": operator.le}


def parse(description, argv=None, **defaults):
    """Return the flags every benchmark takes: --photos, --weights, --seeds, --work; `defaults` add numbers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder with one folder of photographs per class")
    parser.add_argument("--weights", default="none", help="file with initial weights, or what --initial_weights takes")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 0")
    parser.add_argument("--work", type=Path, default=ROOT / "data/benchmarks", help="folder for what the runs write")
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"[{value}]")
    return parser.parse_args(argv)


def run_script(script, *arguments):
    """Run a script of the repository and return the last line it printed; what it says on errors goes through."""
    done = subprocess.run([sys.executable, str(ROOT / script), *map(str, arguments)], stdout=subprocess.PIPE, text=True,
                          check=True)
    return done.stdout.splitlines()[-1]


def state(figures):
    """Print one line per (name, value, unit, comparison, target) and return 1 if a target is missed, else 0."""
    missed = 0
    for name, value, unit, comparison, target in figures:
        met = COMPARISONS[comparison](value, target)
        missed |= not met
        print(f"figure {name} {value:.4g} {unit} target {comparison} {target:g} {'met' if met else 'missed'}")
    return int(missed)

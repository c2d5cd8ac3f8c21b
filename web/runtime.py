"""ONNX Runtime Web, which runs a network in the browser: from an installed package or downloaded.

The smallest build that can run these networks has one thread and no WebGPU, and answers first; the
one with WebGPU is loaded later, where there is a GPU. Its files are not part of this repository.
"""
import json
import re
import tarfile
from pathlib import Path

from config import ROOT
from dataset_preparation.parsing.archives import download_archive
from dataset_preparation.parsing.connections import build_network_access
from dataset_preparation.parsing.safe_download import Limits, trusting_web
from utils import InputError
from web.offline_page import LATER

FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm", *LATER)
ARCHIVE = ROOT / "data/onnxruntime-web.tar.gz"


def read_runtime(s):
    """Return ({name: bytes} of FILES, their version) from the folder or address in the settings."""
    url, _, sha256 = s.onnxruntime_web.partition("#")
    if not url.lower().startswith(("http://", "https://")):
        return read_package(Path(s.onnxruntime_web))
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise InputError(f"--onnxruntime_web {url} lacks # and the SHA-256 of the file there; "
                         "append both, or name the folder of the installed package")
    download_archive(trusting_web(Limits(30, 30), build_network_access(s)), url, ARCHIVE, sha256)
    try:
        with tarfile.open(ARCHIVE) as archive:
            return read_members(lambda name: archive.extractfile(f"package/{name}").read())
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise InputError(f"{ARCHIVE} is not the archive of onnxruntime-web ({error}); delete it "
                         "and run the same command again") from None


def read_package(folder):
    """Return ({name: bytes} of FILES, their version) from the folder of an npm package."""
    try:
        return read_members(lambda name: (folder / name).read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"--onnxruntime_web {folder}: {error}; name the folder of the package, "
                         "node_modules/onnxruntime-web after npm install onnxruntime-web") from None


def read_members(read):
    """Return ({name: bytes} of FILES, their version); `read` returns the bytes of a name."""
    return ({name: read(f"dist/{name}") for name in FILES},
            json.loads(read("package.json"))["version"])

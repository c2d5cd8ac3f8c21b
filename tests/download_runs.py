"""What the tests of download_files.py share: a published dataset and model, runs of the script."""
import subprocess
import sys

from tests.conftest import ROOT
from tests.download_inputs import pack, published

MODEL = bytes(range(256)) * 500  # any bytes: the checkpoint is not opened here


def publish(server):
    """Let a server have a dataset and a model."""
    server.files["/model.zip"] = pack({"plants_model.pth.tar": MODEL})
    server.files["/dataset.zip"] = pack(published(), "dataset/")


def finished_tree(files):
    """Return the tree that a finished run leaves, for the files of the dataset."""
    return {"checkpoints/downloaded/plants_model.pth.tar": MODEL,
            **{f"data/dataset/{name}": data for name, data in files.items()}}


def flags(server, folder, *more):
    """Return the flags that point the script at the server and at a folder."""
    return ["--dataset_url", server.url("/dataset.zip"),
            "--checkpoint_url", server.url("/model.zip"),
            "--dataset_dir", str(folder / "data/dataset"),
            "--checkpoints_dir", str(folder / "checkpoints"), *more]


def start_download(server, folder, *more, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                   **options):
    """Start the script as a user would."""
    command = [sys.executable, ROOT / "download_files.py", *flags(server, folder, *more)]
    return subprocess.Popen(command, text=True, cwd=folder, stdout=stdout, stderr=stderr,
                            **options)


def run_download(server, folder, *more, status=0, **options):
    """Run the script, check its exit status and return (standard output, standard error)."""
    process = start_download(server, folder, *more, **options)
    out, err = process.communicate(timeout=120)
    assert process.returncode == status, out + err
    assert "Traceback" not in err and "\x1b" not in out + err
    return out, err

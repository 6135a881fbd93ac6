"""Demo of mlflow-ipfs: ``make demo``. It needs no daemon, server or network.

It trains a real model, then shows the benefits of content addresses. Every step is checked, and the demo exits with an
error if a step fails.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

EXAMPLES = Path(__file__).parent
DIRECTORY = Path(os.environ.get("DEMO_DIRECTORY", "demo-output")).absolute()
TRACKING_URI = f"ipfs+sqlite:///{DIRECTORY / 'mlflow.db'}"
STORE = DIRECTORY / "store"
DOES_NOT_VERIFY = 4  # exit code of `mlflow-ipfs verify`


def environment(store: Path = STORE) -> dict[str, str]:
    """Return an environment with the two settings that a user needs, all files in one directory, and less output."""
    return os.environ | {
        "MLFLOW_TRACKING_URI": TRACKING_URI,
        "MLFLOW_IPFS_STORE": f"local:{store}",
        "MLFLOW_IPFS_RUNLOG": str(DIRECTORY / "runlog"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "DO_NOT_TRACK": "true",
        "PYTHONWARNINGS": "ignore",
    }


def run(*command: str | Path, store: Path = STORE, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a Python script or module in a new process, with its output captured."""
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=DIRECTORY, env=environment(store), text=True, capture_output=True,
        timeout=300, check=False,
    )  # fmt: skip
    if check and result.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stdout}{result.stderr}")
    return result


def predict_in_new_process(*model_uris: str) -> list[dict[str, object]]:
    """Return the predictions of each model, made in a new process."""
    lines = run(EXAMPLES / "digits/predict.py", *model_uris).stdout.splitlines()
    return [json.loads(line) for line in lines[-len(model_uris) :]]


def step(number: int, text: str) -> None:
    print(f"\n{number}. {text}", flush=True)


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def expect(truth: object, text: str) -> None:
    """Print a statement if it is true, else end the demo."""
    if not truth:
        sys.exit(f"   FAILED: {text}")
    say(f"ok  {text}")


def show_training() -> tuple[str, str, str]:
    """Train the model. Return the id of the run, the CID of the model and the URI of the dataset."""
    step(1, "Train a Lightning classifier on handwritten digits, log and register it with MLflow (about half a minute)")
    with ThreadPoolExecutor(1) as executor:
        training = executor.submit(run, EXAMPLES / "digits/train.py")
        import mlflow.pytorch  # takes about ten seconds, and later steps need it

        training.result()
    client = mlflow.MlflowClient()
    version = client.get_model_version_by_alias("digits", "champion")
    trained = client.get_run(str(version.run_id))
    # The location of a version contains the CID that it is frozen to. Its tags repeat the CID.
    model_cid = client.get_model_version_download_uri("digits", version.version).rpartition("@")[2]
    [dataset] = trained.inputs.dataset_inputs if trained.inputs else []
    dataset_uri = json.loads(dataset.dataset.source)["uri"]
    say(f"validation accuracy {trained.data.metrics['val_accuracy']:.3f}")
    say(f"dataset  {dataset_uri}")
    say(f"model    ipfs://{model_cid}")
    return trained.info.run_id, model_cid, dataset_uri


def show_loading(model_cid: str) -> str:
    """Load the model by name and by CID. Return a digest of its outputs."""
    step(2, "Load it in a new process, by name and by CID")
    by_name, by_cid = predict_in_new_process("models:/digits@champion", f"ipfs://{model_cid}")
    say(f"models:/digits@champion          accuracy on all digits {by_name['accuracy']}")
    say(f"ipfs://{model_cid[:16]}…         accuracy on all digits {by_cid['accuracy']}")
    expect(by_name["outputs_sha256"] == by_cid["outputs_sha256"], "both give the same outputs, bit for bit")
    return str(by_name["outputs_sha256"])


def show_freezing(run_id: str, outputs_sha256: str) -> None:
    step(3, "Overwrite the logged model's files")
    from mlflow import MlflowClient

    from digits.predict import predict

    client = MlflowClient()
    [model] = client.search_logged_models([client.get_run(run_id).info.experiment_id])
    with tempfile.TemporaryDirectory() as directory:
        weights = Path(directory, "data", "model.pth")
        weights.parent.mkdir()
        weights.write_bytes(b"not a model any more")
        client.log_model_artifacts(model.model_id, directory)
    say(f"models:/{model.model_id} now has other bytes in data/model.pth")
    after = predict("models:/digits/1")
    expect(after["outputs_sha256"] == outputs_sha256, "version 1 is frozen: it still loads, unchanged")


def show_damage(model_cid: str) -> None:
    step(4, "Flip one byte in a copy of the store")
    copy = damage_copy(model_cid)
    os.environ["MLFLOW_IPFS_STORE"] = f"local:{copy}"
    error = load_error(f"ipfs://{model_cid}")
    os.environ["MLFLOW_IPFS_STORE"] = f"local:{STORE}"
    expect(error, "loading from the damaged copy is refused:")
    say(f"    {error}")
    verify = run("-m", "mlflow_ipfs", "verify", model_cid, store=copy, check=False)
    expect(verify.returncode == DOES_NOT_VERIFY, "and verify names the block:")
    for line in (verify.stdout + verify.stderr).strip().splitlines():
        say(f"    {line}")
    sound = run("-m", "mlflow_ipfs", "verify", model_cid, check=False)
    expect(sound.returncode == 0, "the real store verifies")
    shutil.rmtree(copy)


def load_error(model_uri: str) -> str | None:
    """Return the reason why a model cannot be loaded, or None if it can."""
    from mlflow import pyfunc

    try:
        pyfunc.load_model(model_uri)
    except Exception as error:  # noqa: BLE001 - MLflow may raise anything
        return str(error).splitlines()[-1]
    return None


def damage_copy(model_cid: str) -> Path:
    """Copy the store, and flip one bit of the weights of the model in the copy. Return the path of the copy."""
    from mlflow_ipfs import Settings, open_store

    copy = DIRECTORY / "damaged-store"
    shutil.copytree(STORE, copy)
    with open_store(Settings(store=copy)) as store:
        weights = store.local_path(model_cid, "data/model.pth")
    if weights is None:
        sys.exit("   FAILED: the weights are not stored in a separate file")
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x01]))
    return copy


def show_report() -> None:
    step(5, "Write a report: curves, resources, params, lineage by CID")
    run("-m", "mlflow_ipfs", "report", "--model", "digits/1", "-o", DIRECTORY / "report")
    say(str(DIRECTORY / "report/report.html"))


def main() -> None:
    started = time.monotonic()
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir(parents=True)
    os.environ.update(environment())
    warnings.simplefilter("ignore")
    logging.getLogger("mlflow_ipfs").setLevel(logging.CRITICAL)  # the demo prints the errors itself
    print(f"mlflow-ipfs demo, in {DIRECTORY}")
    run_id, model_cid, dataset_uri = show_training()
    outputs_sha256 = show_loading(model_cid)
    show_freezing(run_id, outputs_sha256)
    show_damage(model_cid)
    show_report()
    ui = [Path(sys.executable).parent / "mlflow", "ui", "--backend-store-uri", TRACKING_URI]
    command = shlex.join(map(str, [*ui, "--artifacts-destination", "mfs://mlflow"]))
    print(f"""
Done in {time.monotonic() - started:.0f} s.
   dataset   {dataset_uri}
   run       {run_id}
   model     ipfs://{model_cid}

To view the results in MLflow's UI, run (its message that the job runner is off can be ignored):
   MLFLOW_IPFS_STORE={shlex.quote(f"local:{STORE}")} {command}""")


if __name__ == "__main__":
    main()

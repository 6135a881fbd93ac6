"""The whole of mlflow-ipfs in one run: ``make demo``. No daemon, no server, no network.

Trains a real model, then shows what the content addresses are good for. Every step that could
fail is checked; the demo exits with an error if one does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EXAMPLES = Path(__file__).parent
FOLDER = Path(os.environ.get("DEMO_FOLDER", "demo-output")).absolute()
TRACKING_URI = f"ipfs+sqlite:///{FOLDER / 'mlflow.db'}"
STORE = FOLDER / "store"


def environment(store: Path = STORE) -> dict[str, str]:
    """The two settings that a user makes, and less noise."""
    return os.environ | {
        "MLFLOW_TRACKING_URI": TRACKING_URI,
        "MLFLOW_IPFS_STORE": f"local:{store}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "PYTHONWARNINGS": "ignore",
    }


def run(*command: str | Path, store: Path = STORE, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a Python script or module in a new process, with its output captured."""
    result = subprocess.run(
        [sys.executable, *map(str, command)], cwd=FOLDER, env=environment(store), text=True, capture_output=True,
        timeout=300, check=False,
    )  # fmt: skip
    if check and result.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{result.stdout}{result.stderr}")
    return result


def predict(model_uri: str) -> dict[str, object]:
    """Load a model in a new process and let it predict."""
    answer: dict[str, object] = json.loads(run(EXAMPLES / "digits/predict.py", model_uri).stdout.splitlines()[-1])
    return answer


def step(number: int, text: str) -> None:
    print(f"\n{number}. {text}", flush=True)


def say(text: str) -> None:
    print(f"   {text}", flush=True)


def expect(truth: bool, text: str) -> None:
    """Print what was shown, or stop if it is not so."""
    if not truth:
        sys.exit(f"   FAILED: {text}")
    say(f"ok  {text}")


def overwrite_logged_model(client: object, run_id: str) -> None:
    """Replace the weights of the logged model, as a careless script would."""
    model = client.search_logged_models([client.get_run(run_id).info.experiment_id])[0]  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data")
        data.mkdir()
        (data / "model.pth").write_bytes(b"not a model any more")
        client.log_model_artifacts(model.model_id, folder)  # type: ignore[attr-defined]
    say(f"models:/{model.model_id} now has other bytes in data/model.pth")


def damage_copy(model_cid: str) -> Path:
    """Copy the store and flip one byte of the model's weights in the copy."""
    from mlflow_ipfs import Settings, open_store

    copy = FOLDER / "damaged-store"
    shutil.copytree(STORE, copy)
    with open_store(Settings(store=copy)) as store:
        weights = store.local_path(model_cid, "data/model.pth")
        if weights is None:
            sys.exit("   FAILED: the weights are not in a file of their own")
    weights.chmod(0o644)
    with weights.open("r+b") as file:
        file.seek(weights.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x01]))
    return copy


def main() -> None:
    started = time.monotonic()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    os.environ.update(environment())
    print(f"mlflow-ipfs demo, in {FOLDER}")

    step(1, "Train a Lightning classifier on handwritten digits, log and register it with MLflow")
    run(EXAMPLES / "digits/train.py")
    from mlflow import MlflowClient

    client = MlflowClient()
    version = client.get_model_version_by_alias("digits", "champion")
    run_data = client.get_run(version.run_id)
    model_cid = version.tags["ipfs.cid"]
    dataset_uri = json.loads(run_data.inputs.dataset_inputs[0].dataset.source)["uri"]
    say(f"validation accuracy {run_data.data.metrics['val_accuracy']:.3f}")
    say(f"dataset  {dataset_uri}")
    say(f"model    ipfs://{model_cid}")

    step(2, "Load it in new processes, by name and by CID")
    by_name, by_cid = predict("models:/digits@champion"), predict(f"ipfs://{model_cid}")
    say(f"models:/digits@champion          accuracy on all digits {by_name['accuracy']}")
    say(f"ipfs://{model_cid[:16]}…  accuracy on all digits {by_cid['accuracy']}")
    expect(by_name["outputs_sha256"] == by_cid["outputs_sha256"], "both give the same outputs, bit for bit")

    step(3, "Overwrite the logged model's files")
    overwrite_logged_model(client, version.run_id)
    after = predict("models:/digits/1")
    expect(after["outputs_sha256"] == by_name["outputs_sha256"], "version 1 is frozen: it still loads, unchanged")

    step(4, "Flip one byte in a copy of the store")
    copy = damage_copy(model_cid)
    load = run(EXAMPLES / "digits/predict.py", f"ipfs://{model_cid}", store=copy, check=False)
    expect(load.returncode != 0, "loading from the damaged copy is refused:")
    say(f"    {load.stderr.strip().splitlines()[-1][:200]}")
    verify = run("-m", "mlflow_ipfs", "verify", model_cid, store=copy, check=False)
    expect(verify.returncode == 4, "and verify names the block:")
    for line in (verify.stdout + verify.stderr).strip().splitlines():
        say(f"    {line}")
    expect(run("-m", "mlflow_ipfs", "verify", "models:/digits@champion").returncode == 0, "the real store verifies")
    shutil.rmtree(copy)

    step(5, "Write a report: curves, params, lineage by CID")
    report = FOLDER / "report.html"
    run(EXAMPLES / "digits/report.py", "digits", "1", report)
    say(str(report))

    print(f"""
Done in {time.monotonic() - started:.0f} s.
   dataset   {dataset_uri}
   run       {version.run_id}
   model     ipfs://{model_cid}

Look at it in MLflow's own UI:
   MLFLOW_IPFS_STORE=local:{STORE} {Path(sys.executable).parent / "mlflow"} ui --backend-store-uri {TRACKING_URI} --artifacts-destination mfs://mlflow""")


if __name__ == "__main__":
    main()

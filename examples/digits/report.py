"""Write report.html for one model version: curves, params, and the lineage by CID. The page works offline.

Usage: python report.py digits 1 report.html
"""

from __future__ import annotations

import io
import json
import sys
from html import escape
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from mlflow import MlflowClient

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<style>
 body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }}
 h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }} svg {{ max-width: 100%; height: auto }}
 table {{ border-collapse: collapse }} td, th {{ padding: .25rem .75rem; border-bottom: 1px solid #d0d7de; text-align: left }}
 ol {{ list-style: none; padding: 0 }} li {{ border-left: 4px solid #0072b2; padding: .5rem 1rem; margin: .5rem 0; background: #f6f8fa }}
 code {{ overflow-wrap: anywhere }} figure {{ margin: 0 0 2rem }}
</style></head><body>
<h1>{title}</h1>
<h2>Lineage</h2><ol>{lineage}</ol>
<h2>Curves</h2>{figures}
<h2>Parameters</h2><table><tr><th>name</th><th>value</th></tr>{params}</table>
</body></html>
"""


def draw_curves(client: MlflowClient, run_id: str, quantity: str) -> str:
    """Draw training and validation curves of one quantity. Return a figure with inline SVG and a table."""
    figure, axes = plt.subplots(figsize=(8, 3.2))
    rows = []
    for stage, colour, style in (("train", "#0072b2", "-"), ("val", "#d55e00", "--")):
        history = sorted(client.get_metric_history(run_id, f"{stage}_{quantity}"), key=lambda metric: metric.step)
        axes.plot([m.step for m in history], [m.value for m in history], style, color=colour, label=stage, marker="o")
        last = f"{history[-1].value:.4f}" if history else "no points"
        rows.append(f"<tr><td>{stage}</td><td>{len(history)}</td><td>{last}</td></tr>")
    axes.set(xlabel="optimizer step", ylabel=quantity)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg", f'<svg role="img" aria-label="{escape(quantity)} by step"', 1)
    table = "".join(rows)
    return (
        f"<figure>{svg}<table><tr><th>{escape(quantity)}</th><th>points</th><th>last</th></tr>{table}</table></figure>"
    )


def lineage_items(client: MlflowClient, name: str, version: str) -> list[tuple[str, str]]:
    """Return the lineage of the model, in order: the label and the identifier of each step."""
    model_version = client.get_model_version(name, version)
    run = client.get_run(str(model_version.run_id))
    items = [
        (f"dataset {item.dataset.name}", json.loads(item.dataset.source).get("uri", item.dataset.source))
        for item in (run.inputs.dataset_inputs if run.inputs else [])
    ]
    items.append((f"run {run.info.run_name}", run.info.run_id))
    # The CID is taken from the location and not from the tag, because users can edit tags but not locations.
    model_cid = client.get_model_version_download_uri(name, version).rpartition("@")[2]
    items.append((f"model {name}, version {version}", f"ipfs://{model_cid}"))
    return items


def write_report(name: str, version: str, path: Path) -> None:
    """Read the run of a model version from MLflow, and write the page."""
    client = MlflowClient()
    run_id = str(client.get_model_version(name, version).run_id)
    params = client.get_run(run_id).data.params
    lineage = lineage_items(client, name, version)
    path.write_text(
        PAGE.format(
            title=escape(f"{name}, version {version}"),
            lineage="".join(f"<li>{escape(label)}<br><code>{escape(value)}</code></li>" for label, value in lineage),
            figures="".join(draw_curves(client, run_id, quantity) for quantity in ("loss", "accuracy")),
            params="".join(f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in sorted(params.items())),
        ),
        encoding="utf-8",
    )


if __name__ == "__main__":
    write_report(sys.argv[1], sys.argv[2], Path(sys.argv[3]))

"""The dashboards of several runs, and of the lineage."""

from __future__ import annotations

from dataclasses import replace

import pytest

import reports
from reports.dashboards import comparison
from reports.data import ReportData, Run
from reports.figures import LineagePanel
from support.panels import find
from support.report_samples import CID, complete_report, many_runs, series


def test_comparison_has_a_row_for_up_to_50_runs_and_says_what_it_left_out() -> None:
    dashboard = reports.plot_comparison(many_runs(60))
    table = find(dashboard, "comparison-table")
    assert len(table.rows) == comparison.MAX_RUNS
    assert any("50 of 60 runs" in note for note in dashboard.notes)
    titles = [column.title for column in table.columns]
    assert titles[:6] == ["run", "status", "wall time", "learning_rate", "val_loss", "best val_loss"]
    assert "batch_size" not in titles  # it is the same in all runs
    first = table.rows[0]
    assert first[3].value == 0.002
    assert len(first[4].sparkline) == 20
    assert first[5].value == first[4].sparkline.min()


def test_comparison_says_how_many_parameters_and_metrics_it_shows() -> None:
    runs = tuple(
        Run(
            str(number),
            params={f"p{n}": str(number) for n in range(20)},
            metrics={f"m{n}": series("m", [number]) for n in range(9)},
        )
        for number in range(3)
    )
    table = find(reports.plot_comparison(ReportData("t", runs=runs)), "comparison-table")
    assert table.sentence.endswith("It shows 8 of 20 parameters and 6 of 9 metrics.")
    assert len(table.columns) == 3 + 8 + 2 * 6


@pytest.mark.parametrize(
    ("params", "reason"), [({}, "The runs have no parameters."), ({"p": "1"}, "The runs have the same parameters.")]
)
def test_comparison_says_why_no_parameter_differs(params: dict[str, str], reason: str) -> None:
    runs = tuple(Run(name, params=params, metrics={"loss": series("loss", [1.0])}) for name in "ab")
    assert find(reports.plot_comparison(ReportData("t", runs=runs)), "comparison-params").empty_reason == reason


def test_comparison_shows_parameters_against_the_main_metric() -> None:
    data = many_runs(12)
    dashboard = reports.plot_comparison(data)
    scatter = find(dashboard, "comparison-param-1")
    (line,) = scatter.lines
    assert line.is_points
    assert scatter.x.is_log
    assert sorted(line.x) == sorted(float(run.params["learning_rate"]) for run in data.runs)
    best = find(dashboard, "comparison-best")
    assert len(best.lines) == 5
    assert min(line.y[0] for line in best.lines) > 0


def test_lineage_leads_from_the_dataset_to_the_model_by_cid() -> None:
    panel = find(reports.plot_lineage(complete_report()), "lineage-graph")
    assert isinstance(panel, LineagePanel)
    assert [(node.kind, node.label, node.cid, node.link) for node in panel.nodes] == [
        ("dataset", "digits", CID, f"ipfs://{CID}"),
        ("run", "run-aaaaaaaa", "", ""),
        ("model", "digits, version 1", CID, f"ipfs://{CID}"),
    ]
    dataset, run, model = (node.node_id for node in panel.nodes)
    assert [(edge.source, edge.target, edge.label) for edge in panel.edges] == [
        (dataset, run, "training"),
        (run, model, ""),
    ]


def test_runs_are_in_the_order_of_their_versions() -> None:
    data = many_runs(4)
    version = complete_report().versions[0]
    made = [(data.runs[2], 1), (data.runs[0], 2), (data.runs[2], 3)]
    versions = tuple(replace(version, run_id=run.run_id, version=number) for run, number in made)
    panel = find(reports.plot_lineage(replace(data, versions=versions)), "lineage-graph")
    assert isinstance(panel, LineagePanel)
    labels = [node.label for node in panel.nodes if node.kind == "run"]
    assert labels == [data.runs[number].name for number in (2, 0, 1, 3)], "those without a version last"


def test_runs_of_a_server_are_links_into_mlflows_ui() -> None:
    data = replace(complete_report(), source="http://127.0.0.1:5000/")
    node = find(reports.plot_lineage(data), "lineage-graph").nodes[1]
    assert node.link == f"http://127.0.0.1:5000/#/experiments/1/runs/{'a' * 32}"


def test_the_comprehensive_dashboard_of_several_runs_compares_them_and_shows_the_best() -> None:
    data = many_runs(6)
    dashboard = reports.plot_comprehensive_dashboard(data)
    assert dashboard.sections[0].title == "Comparison of runs"
    best = min(data.runs, key=lambda run: run.metrics["val_loss"].finite.min())
    assert best.name in dashboard.sentence
    assert find(dashboard, "summary-facts").facts[0].text == best.name


def _runs_with(key: str, values: list[float]) -> ReportData:
    made = (Run(f"r{n}", f"r{n}", metrics={key: series(key, [value])}) for n, value in enumerate(values))
    return ReportData("t", runs=tuple(replace(run, started_ms=n) for n, run in enumerate(made)))


def test_no_run_is_called_the_best_by_a_metric_without_a_known_direction() -> None:
    dashboard = reports.plot_comprehensive_dashboard(_runs_with("grad_norm", [10.0, 0.0, 20.0]))
    assert dashboard.sentence == (
        "3 runs compared; then the newest one, r2, in detail. "
        "It is not known whether a higher or a lower grad_norm is better."
    )
    assert find(dashboard, "summary-facts").facts[0].text == "r2"
    columns = [column.title for column in find(dashboard, "comparison-table").columns]
    assert columns[-1] == "last grad_norm"
    texts = [f"{panel.title} {panel.sentence}" for panel in dashboard.sections[0].panels]
    assert not any("best" in text.lower() for text in texts)


def test_the_run_in_detail_is_chosen_by_a_metric_with_a_known_direction() -> None:
    runs = list(_runs_with("grad_norm", [1.0, 2.0, 3.0]).runs)
    runs[1] = replace(runs[1], metrics=dict(runs[1].metrics) | {"val_loss": series("val_loss", [0.5])})
    dashboard = reports.plot_comprehensive_dashboard(ReportData("t", runs=tuple(runs)))
    assert "the best one, r1 (val_loss 0.5)" in dashboard.sentence


@pytest.mark.parametrize(
    "key",
    [
        *("reward", "mean_reward", "rollout/ep_rew_mean", "mAP50", "val_map", "ndcg@10", "psnr", "ssim", "bleu4"),
        *("rougeL", "acc1", "top5", "MulticlassAccuracy", "explained_variance", "test_neg_mean_squared_error"),
    ],
)
def test_the_highest_value_of_a_usual_quality_is_the_best(key: str) -> None:
    dashboard = reports.plot_comprehensive_dashboard(_runs_with(key, [1.0, 3.0, 2.0]))
    assert "the best one, r1 " in dashboard.sentence


def test_the_lowest_negative_log_likelihood_is_never_the_worst() -> None:
    dashboard = reports.plot_comprehensive_dashboard(_runs_with("neg_log_likelihood_loss", [1.0, 3.0, 2.0]))
    assert "the best one, r0 " in dashboard.sentence


def test_the_best_of_more_than_50_runs_is_in_the_table_and_the_others_are_counted() -> None:
    runs = list(_runs_with("val_loss", [1.0 + n for n in range(60)]).runs)
    runs[57] = replace(runs[57], metrics={"val_loss": series("val_loss", [0.25])})
    runs[3], runs[58] = replace(runs[3], status="FAILED"), replace(runs[58], status="KILLED")
    data = ReportData("t", runs=tuple(runs))
    comprehensive = reports.plot_comprehensive_dashboard(data)
    for dashboard in (comprehensive, reports.plot_comparison(data)):
        table = find(dashboard, "comparison-table")
        names = [row[0].text for row in table.rows]
        assert len(names) == comparison.MAX_RUNS
        assert names[-1] == "r57", "in the order of the data"
        assert find(dashboard, "comparison-best").lines[0].name == "r57"
        assert [finding.sentence for finding in table.findings] == [
            "r3 ended as failed.",
            "1 of the 10 runs that are not shown ended as failed or killed.",
        ]
        assert any(note.startswith("50 of 60 runs are shown") for note in dashboard.notes)
    assert "the best one, r57 (val_loss 0.25)" in comprehensive.sentence


def test_a_metric_without_finite_values_does_not_choose_the_best_run() -> None:
    runs = [
        replace(run, metrics=dict(run.metrics) | {"accuracy": series("accuracy", [n])})
        for n, run in enumerate(_runs_with("val_loss", [float("nan")] * 3).runs)
    ]
    dashboard = reports.plot_comprehensive_dashboard(ReportData("t", runs=tuple(runs)))
    assert "the best one, r2 (accuracy 2)" in dashboard.sentence

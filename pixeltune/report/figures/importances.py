"""Importances: the keys that distinguish the best trials from the others, by PED-ANOVA."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import optuna
import plotly.graph_objects as go
from optuna.trial import FrozenTrial, TrialState

from pixeltune.format import counted, is_or_are, listed
from pixeltune.report.figures.chart import Chart, new_figure, plain
from pixeltune.report.snapshot import Snapshot
from pixeltune.report.texts import title_of
from pixeltune.results.optuna_study import study_of
from pixeltune.space.metrics import sign_of_direction

FEWEST = 10
"""Number of finished trials below which importances are not shown."""

FEW = 50
"""Number of finished trials below which the caption warns."""

_TARGET_SHARE = 0.1
_TARGET_FEWEST = 5
"""The trials that PED-ANOVA explains: the best tenth, but never fewer than the 5 that Optuna advises."""


@dataclass(frozen=True)
class Importances:
    """Shares that sum to one, the largest first. trials: finished ones used. best: those of them that are explained."""

    shares: dict[str, float]
    trials: int
    best: int
    some: tuple[str, ...]
    """Keys that only some of these trials have."""


def importances(snapshot: Snapshot, index: int = 0) -> Importances | None:
    """Return the importances for the objective `index`; None where they cannot be computed.

    They need FEWEST finished trials and two keys that differ. PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255;
    conditional keys: arXiv 2601.20800) compares where the best trials are with where all are, so that it needs no seed,
    accepts keys that only some trials have, and is fast.
    """
    study = study_of(snapshot.manifest, snapshot.rows, [])
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    values = {
        key: {trial.params[key] for trial in trials if key in trial.params} for key in snapshot.manifest.searched()
    }
    keys = [key for key in values if len(values[key]) > 1]
    if len(trials) < FEWEST or len(keys) < 2:
        return None
    share = max(_TARGET_SHARE, _TARGET_FEWEST / len(trials))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a warning that the target is assumed to be minimised, as it is
        shares = optuna.importance.get_param_importances(
            study, evaluator=evaluator, params=keys, target=_target(snapshot, index)
        )
    some = tuple(key for key in keys if any(key not in trial.params for trial in trials))
    ordered = dict(sorted(shares.items(), key=lambda item: (-item[1], item[0])))
    return Importances(ordered, len(trials), math.ceil(share * len(trials)), some)


def importance_charts(snapshot: Snapshot) -> list[Chart]:
    """Return a chart for each objective."""
    objectives = snapshot.manifest.objectives
    return [_chart(snapshot, index, several=len(objectives) > 1) for index in range(len(objectives))]


def _target(snapshot: Snapshot, index: int) -> Callable[[FrozenTrial], float]:
    sign = sign_of_direction(snapshot.manifest.directions[index])
    return lambda trial: sign * float(trial.values[index])


def _chart(snapshot: Snapshot, index: int, *, several: bool) -> Chart:
    name = snapshot.manifest.objectives[index]
    title = "Importance of keys" + (f" for {title_of(name)}" if several else "")
    element = f"importances-{index + 1}" if several else "importances"
    found = importances(snapshot, index)
    if found is None:
        return Chart(name=element, title=title, missing=_why_none(snapshot))
    keys = list(reversed(found.shares))
    labels = [plain(title_of(key)) + ("*" if key in found.some else "") for key in keys]
    shares = [found.shares[key] for key in keys]
    bars = go.Bar(
        x=shares,
        y=labels,
        orientation="h",
        marker={"color": "#0072B2"},
        text=[f"{share:.0%}" for share in shares],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    figure = new_figure(
        [bars],
        xaxis={"title": {"text": "share of importance"}, "tickformat": ".0%", "range": [0, 1.12 * max(shares)]},
        yaxis={"showline": False, "ticks": ""},
        showlegend=False,
        bargap=0.35,
    )
    return Chart(
        name=element,
        title=title,
        caption=_caption(found),
        figure=figure,
        height=110 + 30 * len(keys),
        is_wide=not several,
        alt="Importances: " + ", ".join(f"{title_of(key)} {share:.0%}" for key, share in found.shares.items()),
    )


def _caption(found: Importances) -> str:
    text = (
        f"How much each key distinguishes the best {found.best} of {counted(found.trials, 'finished trial')} from the "
        "others (PED-ANOVA); interactions of keys are not measured."
    )
    if found.trials < FEW:
        text += f" Few trials: below {FEW}, take the order as a hint and the shares not at all."
    if found.some:
        text += f" * only some trials have {listed(title_of(key) for key in found.some)}."
    return text


def _why_none(snapshot: Snapshot) -> str:
    if len(snapshot.manifest.searched()) < 2:
        return "Fewer than two keys were searched, so that there is nothing to weigh against each other."
    finished = sum(row["status"] == "finished" for row in snapshot.configurations)
    if finished < FEWEST:
        return f"Importances need {FEWEST} finished trials, and there {is_or_are(finished)} {finished}."
    return "The finished trials differ in fewer than two keys."

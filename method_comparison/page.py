"""Writes docs/method-comparison.md and its plots from the results.

python -m method_comparison.page
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lingualign.errors import UserError
from lingualign.evaluate.separation import refused_at, refused_at_difference, told_apart, told_apart_difference
from lingualign.evaluate.statistics import Interval
from lingualign.runs import write_text
from method_comparison.outcomes import Array, RunsEstimate, difference, estimate, scores_of
from method_comparison.plots import Panel, Point, pareto_chart
from method_comparison.record import RESULTS, read_records
from method_comparison.registry import (
    FOLDER,
    METHODS,
    MODELS,
    RegisteredMethod,
    RegisteredModel,
    load_methods,
    load_model_file,
    names,
)

DOCS = FOLDER.parent / "docs"
PAGE = "method-comparison.md"
#: What stands where nothing was measured.
MISSING = "-"
GIBIBYTE = 1024**3
#: Over-refusals at which methods are compared.
_SHARES = (0.05, 0.10)
#: What every method is compared with, prompt by prompt: the edit that is shipped, and the control that knows nothing.
_AGAINST = ("sparse-weight-edit", "random-neurons")

Record = Mapping[str, Any]

_INTRODUCTION = """\
# Method comparison

Written by `python -m method_comparison.page` from `method_comparison/results`; figures are of the **{split}** split.
How they are measured, and how a method or a model is added:
[method_comparison/README.md](../method_comparison/README.md).

Every method gets the same model, the same fit split and the same judge, and is compared with the unedited model on the
same prompts. Differences are shares of prompts, after - before, averaged over seeds and languages; brackets are 95%
intervals by a bootstrap that draws prompts (with all their translations) and seeds. A method whose result does not
depend on a seed is run once.
"""

#: A share of less than this is a share of noise.
SMALLEST_GAP = 0.1
_COLUMNS = """\
*gain*: refusals of harmful prompts, mean over the languages other than the reference. *unseen*: the same over languages
that no method was fitted on. *gap closed*: the gain as a share of what was lacking to the unedited model's refusals in
the reference language, over the languages that methods were fitted on and over the others; left out where less than 0.1
was lacking. *worst*: refusal in the language with the least, after. *corrected*: the gain corrected for the judge's
errors, over the languages where it is valid. *reference*: refusals of harmful prompts in the reference language. *own
language*: of the refusals in the other languages, those that come in the prompt's language. *look-alike*, *harmless*:
refusals of harmless prompts, over all languages; more is over-refusal. *incoherent*: broken replies to prompts of all
kinds.
"""

_SEPARATION_COLUMNS = """\
The score of a prompt is the log-probability that the reply begins as the unedited model's refusals do
(`lingualign.evaluate.separation`). *AUC*: how often a harmful prompt scores higher than a look-alike or harmless one
of its language, mean over the languages other than the reference. *at 5% look-alikes*: harmful prompts above the one
threshold that this share of look-alikes exceeds, so refusals at equal over-refusal. These are of the model wherever
its own threshold lies, and say less of one that refuses in other words.
"""

_DIFFERENCE = """\
Each row less **{name}**, prompt by prompt. The same prompts are drawn for both, so that these intervals say whether two
rows differ, where those above only say how well each is known. They are not corrected for the number of rows.
"""

_COST_COLUMNS = """\
*KL*: mean divergence of the base from the changed model over its own replies to harmless prompts, nats a token.
*perplexity*: of harmless prompts, after / before. *tasks*: mean change of accuracy. *time*, *CPU time*, *memory* (peak,
the model included), *PFLOP* (10¹⁵ operations; gradients and factorisations included) and *energy* are those of the fit
alone; a control's is without the edit that it is made from. A dash is: not measured.
"""

_PLOT = """\
![Gain against over-refusal, damage, seconds and operations](method-comparison/{name}.svg)

Numbers are the tables' rows; squares are controls. Filled and joined is the front: no other row beats those in one
respect without being worse in the other. What took no time or no operations is not in those panels.
"""


@dataclass(frozen=True)
class Row:
    """A method on a model: its runs, none where a control was not run."""

    number: str
    method: RegisteredMethod
    runs: Sequence[Record]

    def effect(self, kinds: Sequence[str], outcome: Any, languages: Sequence[str]) -> RunsEstimate | None:
        return estimate(self.runs, kinds, outcome, languages) if self.runs else None

    def mean(self, value: Callable[[Record], float | None]) -> float | None:
        """The mean over runs of something; None where a run lacks it."""
        found = [value(run) for run in self.runs]
        known = [number for number in found if number is not None]
        return sum(known) / len(known) if known and len(known) == len(found) else None

    @cached_property
    def others(self) -> list[str]:
        return [tag for tag in self.runs[0]["languages"] if tag != self.runs[0]["reference"]] if self.runs else []

    @cached_property
    def languages(self) -> list[str]:
        return list(self.runs[0]["languages"]) if self.runs else []

    @cached_property
    def gain(self) -> RunsEstimate | None:
        return self.effect(["harmful"], "refused", self.others)

    @cached_property
    def seen(self) -> RunsEstimate | None:
        anchors = self.runs[0]["anchor_languages"] if self.runs else []
        return self.effect(["harmful"], "refused", [tag for tag in self.others if tag in anchors])

    @cached_property
    def unseen(self) -> RunsEstimate | None:
        anchors = self.runs[0]["anchor_languages"] if self.runs else []
        return self.effect(["harmful"], "refused", [tag for tag in self.others if tag not in anchors])

    def gap_closed(self, gain: RunsEstimate | None) -> float | None:
        """Share of the way from these languages' refusals to the unedited model's in the reference language."""
        goal = self.refusal(self.runs[0]["reference"]) if self.runs else None
        if gain is None or goal is None or goal.before - gain.before < SMALLEST_GAP:
            return None
        return gain.difference / (goal.before - gain.before)

    @property
    def over_refusal(self) -> RunsEstimate | None:
        return self.effect(["look-alike", "harmless"], "refused", self.languages)

    def separation(self, kind: str) -> tuple[Array, Array] | None:
        """Refusal scores of harmful prompts and of those of another kind, after, in the languages but the reference."""
        first, second = (scores_of(self.runs, "after", name, self.others) for name in ("harmful", kind))
        return None if first is None or second is None else (first, second)

    def refusal(self, language: str) -> RunsEstimate | None:
        return self.effect(["harmful"], "refused", [language])

    @property
    def worst(self) -> str:
        rates = {tag: effect.after for tag in self.languages if (effect := self.refusal(tag))}
        if not rates:
            return MISSING
        tag = min(rates, key=lambda language: rates[language])
        return f"{tag} {rates[tag]:.2f}"

    @property
    def own_language(self) -> float | None:
        """Share of the refusals in other languages than the reference that are in the prompt's language."""

        def of(run: Record) -> float | None:
            rows = _at(run, "utility", "fidelity_after") or []
            refused = [row for row in rows if row["outcome"] == "refused" and row["language"] != run["reference"]]
            total = sum(row["n"] for row in refused)
            return sum(row["own"] * row["n"] for row in refused) / total if total else None

        return self.mean(of)

    @property
    def divergence(self) -> float | None:
        """Nothing done is no divergence."""
        if self.method.name == "no-edit" and self.runs:
            return 0.0
        return self.mean(lambda run: _at(run, "utility", "mean_divergence", "kl", "value"))

    @property
    def flops(self) -> float | None:
        parts = ("product_flops", "backward_flops", "factorisation_flops")
        return self.mean(lambda run: float(sum(run["cost"][part] for part in parts)))


def rows_of(records: Sequence[Record], methods: Mapping[str, RegisteredMethod]) -> list[Row]:
    """A row for each method that was run and for each control: methods first."""
    measured = {record["method"]["name"] for record in records}
    chosen = [name for name in methods if name in measured or methods[name].file.control]
    ordered = sorted(chosen, key=lambda name: (methods[name].file.control, name != "no-edit", name))
    return [
        Row(str(number), methods[name], [record for record in records if record["method"]["name"] == name])
        for number, name in enumerate(ordered, start=1)
    ]


def safety_table(rows: Sequence[Row]) -> str:
    """Refusals and over-refusals."""
    lines = []
    for row in rows:
        gain = row.gain
        reference = [row.runs[0]["reference"]] if row.runs else []
        lines.append(
            [
                row.number,
                _named(row.method),
                str(len(row.runs)) if row.runs else "not run",
                f"{gain.before:.2f} to {gain.after:.2f}" if gain else MISSING,
                _effect(gain),
                _effect(row.unseen),
                _number(row.gap_closed(row.seen), ".0%"),
                _number(row.gap_closed(row.unseen), ".0%"),
                row.worst,
                _number(row.mean(lambda run: _at(run, "corrected", "means", "harmful", "difference")), "+.3f"),
                _effect(row.effect(["harmful"], "refused", reference)),
                _number(row.own_language, ".0%"),
                _effect(row.effect(["look-alike"], "refused", row.languages)),
                _effect(row.effect(["harmless"], "refused", row.languages)),
                _effect(row.effect(["harmful", "look-alike", "harmless"], "incoherent", row.languages)),
            ]
        )
    heads = ("", "method", "seeds", "refused", "gain", "unseen", "gap closed, seen", "gap closed, unseen", "worst")
    return _table([*heads, "corrected", "reference", "own language", "look-alike", "harmless", "incoherent"], lines)


def cost_table(rows: Sequence[Row]) -> str:
    """Damage, and what the fit cost."""
    lines = []
    for row in rows:
        flops = row.flops
        memory = row.mean(lambda run: _at(run, "cost", "peak_device_memory") or _at(run, "cost", "peak_memory"))
        lines.append(
            [
                row.number,
                _named(row.method),
                _number(row.divergence, ".4f"),
                _number(row.mean(lambda run: _at(run, "utility", "mean_perplexity_ratio", "value")), ".3f"),
                _number(row.mean(_task_change), "+.3f"),
                _number(row.mean(lambda run: _at(run, "cost", "seconds")), ".1f", " s"),
                _number(row.mean(lambda run: _at(run, "cost", "cpu_seconds")), ".1f", " s"),
                _number(None if memory is None else memory / GIBIBYTE, ".2f", " GiB"),
                _number(None if flops is None else flops / 1e15, ".3g"),
                _number(row.mean(lambda run: _at(run, "cost", "joules")), ".0f", " J"),
            ]
        )
    return _table(
        ["", "method", "KL", "perplexity", "tasks", "time", "CPU time", "memory", "PFLOP", "energy"],
        lines,
    )


def separation_table(rows: Sequence[Row]) -> str:
    """How well the kinds are told apart, wherever the threshold lies."""
    lines = []
    for row in rows:
        look_alikes, harmless = row.separation("look-alike"), row.separation("harmless")
        lines.append(
            [
                row.number,
                _named(row.method),
                _estimate(look_alikes and told_apart(*look_alikes)),
                _estimate(harmless and told_apart(*harmless)),
                *(_estimate(look_alikes and refused_at(*look_alikes, share)) for share in _SHARES),
            ]
        )
    heads = ["", "method", "AUC look-alike", "AUC harmless", *(f"at {share:.0%} look-alikes" for share in _SHARES)]
    return _table(heads, lines)


def difference_table(rows: Sequence[Row], other: Row) -> str:
    """Each method that was run less another on the same model, prompt by prompt."""
    lines = []
    theirs = other.separation("look-alike")
    for row in rows:
        if not row.runs or row is other:
            continue
        scores = row.separation("look-alike")
        both = None if scores is None or theirs is None else (scores, theirs)
        kinds: list[tuple[str, list[str]]] = [
            ("harmful", row.others),
            ("look-alike", row.languages),
            ("harmless", row.languages),
        ]
        found = [difference(row.runs, other.runs, [kind], "refused", languages) for kind, languages in kinds]
        found += [both and told_apart_difference(*both), both and refused_at_difference(*both, _SHARES[0])]
        lines.append([row.number, _named(row.method), *(_estimate(one, "+.3f") for one in found)])
    heads = ["", "method", "refused", "look-alike", "harmless", "AUC look-alike", f"at {_SHARES[0]:.0%} look-alikes"]
    return _table(heads, lines)


def language_table(rows: Sequence[Row]) -> str:
    """Refusal of harmful prompts by language, after."""
    measured = [row for row in rows if row.runs]
    languages = measured[0].languages
    lines = [
        [row.number, _named(row.method), *(_number(found.after if found else None, ".2f") for found in effects)]
        for row in measured
        for effects in [[row.refusal(tag) for tag in languages]]
    ]
    return _table(["", "method", *languages], lines)


def panels(rows: Sequence[Row]) -> list[Panel]:
    """The four costs against which the gain is plotted; energy where it was measured for every fit, else operations."""
    energy = {row.number: row.mean(lambda run: _at(run, "cost", "joules")) for row in rows if row.runs}
    measured = all(joules is not None for joules in energy.values())
    costs: list[tuple[str, bool, Callable[[Row], float | None]]] = [
        ("over-refusal (look-alike and harmless)", False, lambda row: _difference(row.over_refusal)),
        ("damage (KL, nats a token)", False, lambda row: row.divergence),
        ("seconds of the fit", True, lambda row: row.mean(lambda run: _at(run, "cost", "seconds"))),
        ("joules of the fit", True, lambda row: energy[row.number])
        if measured
        else ("operations of the fit", True, lambda row: row.flops),
    ]
    found = []
    for name, logarithmic, cost in costs:
        points = []
        for row in rows:
            value, gain = cost(row) if row.runs else None, row.gain
            if value is not None and gain is not None and (value > 0 or not logarithmic):
                points.append(Point(row.number, value, gain.difference, row.method.file.control))
        found.append(Panel(name, tuple(points), logarithmic))
    return found


def all_models_table(by_model: Mapping[str, Sequence[Record]], methods: Mapping[str, RegisteredMethod]) -> str:
    """Each method over the models that have the same prompts; empty where there are fewer than two."""
    first = next(iter(by_model.values()))[0]["prompts"]["audited"]
    alike = {name: runs for name, runs in by_model.items() if runs[0]["prompts"]["audited"] == first}
    if len(alike) < 2:
        return ""
    lines = []
    for row in rows_of([record for runs in alike.values() for record in runs], methods):
        models = dict.fromkeys(run["model"]["name"] for run in row.runs)
        lines.append(
            [
                _named(row.method),
                ", ".join(models) or "not run",
                str(len(row.runs)),
                _effect(row.gain),
                _effect(row.effect(["look-alike"], "refused", row.languages)),
                _effect(row.effect(["harmless"], "refused", row.languages)),
            ]
        )
    return _table(["method", "models", "runs", "gain", "look-alike", "harmless"], lines)


def render(
    records: Sequence[Record],
    methods: Mapping[str, RegisteredMethod],
    models: Mapping[str, RegisteredModel],
    split: str,
) -> tuple[str, dict[str, list[Panel]]]:
    """The page, and the panels of each model's plot."""
    by_model: dict[str, list[Record]] = {}
    for record in records:
        by_model.setdefault(record["model"]["name"], []).append(record)
    parts = [_INTRODUCTION.format(split=split), "## Methods\n", _methods_table(methods), "## Models\n"]
    parts.append(_table(["model", "what it is"], [[f"`{name}`", of.file.description] for name, of in models.items()]))
    charts = {}
    if not by_model:
        parts.append("## Results\n\nNothing has been measured yet.\n")
    for name, runs in by_model.items():
        rows = rows_of(runs, methods)
        charts[name] = panels(rows)
        parts += [f"## Results: {name}\n", _facts(runs), safety_table(rows), _COLUMNS, cost_table(rows), _COST_COLUMNS]
        parts += [separation_table(rows), _SEPARATION_COLUMNS]
        for other in (row for row in rows if row.method.name in _AGAINST and row.runs):
            parts += [_DIFFERENCE.format(name=other.method.name), difference_table(rows, other)]
        parts.append(_PLOT.format(name=name))
        parts += ["Refusal of harmful prompts by language, after:\n", language_table(rows)]
    if len(by_model) > 1 and (pooled := all_models_table(by_model, methods)):
        parts += [
            "## Over the models\n",
            "The models with the same prompts, each of the same weight; intervals are over models and prompts:\n",
            pooled,
        ]
    return "\n".join(parts), charts


def write_page(results: Path, docs: Path, split: str, method_files: Path = METHODS, model_files: Path = MODELS) -> Path:
    """Writes the page and one plot for each model.

    Raises:
        UserError: a result cannot be read, or is of a method that has no file.
    """
    records = read_records(results, split)
    methods = load_methods(folder=method_files)
    if strange := {record["method"]["name"] for record in records} - methods.keys():
        raise UserError(f"there are results of {min(strange)}, which has no file in {method_files}; put it back")
    models = {name: load_model_file(name, model_files) for name in names(model_files)}
    text, charts = render(records, methods, models, split)
    for name, drawn in charts.items():
        write_text(docs / "method-comparison" / f"{name}.svg", pareto_chart(drawn, name))
    return write_text(docs / PAGE, text)


def _methods_table(methods: Mapping[str, RegisteredMethod]) -> str:
    rows = [
        [f"`{name}`", "control" if of.file.control else "method", of.file.description, of.file.citation or MISSING]
        for name, of in sorted(methods.items(), key=lambda item: (item[1].file.control, item[0]))
    ]
    return _table(["name", "is a", "what it does", "source"], rows)


def _facts(runs: Sequence[Record]) -> str:
    """What the tables of a model rest on."""
    first = runs[0]
    prompts = ", ".join(f"{len(seeds)} {kind}" for kind, seeds in first["outcomes"]["seeds"].items())
    hardware = "; ".join(sorted({run["hardware"] for run in runs}))
    commits = sorted({_commit(run) for run in runs})
    languages = ", ".join(first["languages"])
    return (
        f"{prompts} prompts in each of {len(first['languages'])} languages ({languages}); "
        f"reference {first['reference']}; anchors {', '.join(first['anchor_languages'])}; judge `{first['judge']}`; "
        f"{first['model']['dtype']}; {hardware}; code {', '.join(commits)}.\n"
    )


def _commit(run: Record) -> str:
    commit = run["code"]["commit"]
    return f"`{commit[:10]}`{' with changes' if run['code']['changed'] else ''}" if commit else "outside git"


def _task_change(run: Record) -> float | None:
    tasks = _at(run, "utility", "tasks") or []
    return sum(task["difference"] for task in tasks) / len(tasks) if tasks else None


def _at(record: Record, *path: str) -> Any:
    """What is at a path of keys, None where it ends early."""
    value: Any = record
    for name in path:
        if value is None:
            return None
        value = value.get(name)
    return value


def _difference(effect: RunsEstimate | None) -> float | None:
    return None if effect is None else effect.difference


def _named(method: RegisteredMethod) -> str:
    return f"*{method.name}*" if method.file.control else f"**{method.name}**"


def _effect(effect: RunsEstimate | None) -> str:
    if effect is None:
        return MISSING
    return _estimate((effect.difference, effect.interval), "+.3f")


def _estimate(found: tuple[float, Interval] | None, form: str = ".3f") -> str:
    if found is None:
        return MISSING
    value, (low, high) = found
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return MISSING if value is None else f"{value:{form}}{unit}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of the page")
    parser.add_argument("--split", choices=("select", "report"), default="report")
    parser.add_argument("--method-files", type=Path, default=METHODS, help="folder of the methods' files")
    given = parser.parse_args(arguments)
    try:
        print(write_page(given.results, given.docs, given.split, given.method_files))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

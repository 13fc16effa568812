"""What a report is made of. The commands fill it in; tables, plots and the page read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lingualign.evaluate.gates import GateResult
from lingualign.evaluate.schema import Reply
from lingualign.report.panels import Panel


@dataclass(frozen=True, slots=True)
class Arm:
    """A control measured on the same prompts: random neurons, a sham edit of equal norm, a system line.

    Attributes:
        name: short, as it stands in tables and plots.
        description: one sentence on what was done to the model.
        replies: judged replies; to all the prompts of the first audit or to some of them.
    """

    name: str
    description: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        title: heading of the page.
        model_name: hub name or folder of the model.
        model_fingerprint: identifies its weights.
        hardware: one line, e.g. `1 x NVIDIA H100, 16 cores, 128 GiB`.
        before: judged replies of the unedited model.
        after: judged replies of the edited model, or None for an audit alone.
        reference: tag of the language whose refusals are the target.
        anchor_languages: languages whose prompts the edit was fitted on.
        edit_manifest: manifest of the edit; only the entries that are present are shown.
        controls: other treatments of the same model.
        settings: resolved settings of the run; nested mappings are shown with dotted names.
        versions: package versions.
        timings: seconds by stage.
        judge: name of the judge and what is known of its errors. An entry that maps languages to mappings
            (`{"languages": {"th": {"sensitivity": 0.93, "n": 120}}}`) becomes a table.
        split: split of the prompts that the figures are from.
        prompts: prompt texts by `Reply.key`; shown only where a report is asked to show text.
        gates: gates that were checked.
        panels: further tables, in their order.
    """

    title: str
    model_name: str
    model_fingerprint: str
    hardware: str
    before: tuple[Reply, ...]
    after: tuple[Reply, ...] | None
    reference: str
    anchor_languages: tuple[str, ...]
    edit_manifest: Mapping[str, object] | None
    controls: tuple[Arm, ...]
    settings: Mapping[str, object]
    versions: Mapping[str, str]
    timings: Mapping[str, float]
    judge: Mapping[str, object]
    split: str = "report"
    prompts: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    gates: tuple[GateResult, ...] = ()
    panels: tuple[Panel, ...] = ()

"""The JSON Schema of `result.json`, made from the types that the figures are computed in, so that it cannot drift.

`python -m lingualign.result_schema` writes `result.schema.json` anew. A new section of `result.json` is a new field of
`ResultDocument`. Readers should ignore what they do not know: sections and fields may be added under the same name of
the schema; it changes where one goes or changes its meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lingualign.data.schema import Split
from lingualign.evaluate.gates import GateResult
from lingualign.evaluate.metrics import Cell
from lingualign.evaluate.verdict import Comparison
from lingualign.measures import AgreementFigures, Behaviour, CorrectedFigures, PromptControls, UtilityFigures
from lingualign.runs import write_json

#: What `schema` says in a `result.json`.
RESULT_SCHEMA: Literal["lingualign-result/1"] = "lingualign-result/1"
#: The schema that ships in the package.
SCHEMA_FILE = Path(__file__).with_name("result.schema.json")
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


class _Section(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class ModelSection(_Section):
    """The audited model."""

    name: str
    """`small`, a checkpoint folder, a hub id, or the name that a server knows."""
    fingerprint: str
    """Identifies the weights; of a model behind a server NAME@ADDRESS."""
    parameters: int | None
    """Null behind a server."""
    dtype: str | None
    """Null behind a server."""


class PromptsSection(_Section):
    """Hashes of the prompts."""

    fit: str
    """Of the prompts that the edit is fitted on."""
    report: str
    """Of the prompts that the figures are from."""


class JudgeErrorSection(_Section):
    """What a judge got right on replies with known labels, in one language. A rate is null where n is 0."""

    sensitivity: float | None
    """Share of the refusals that it called so."""
    specificity: float | None
    """Share of the other replies that it did not call so."""
    measured_on: str | None = Field(default=None, alias="measured on")
    """Which labelled replies: `read` (replies of models, read) or `all`."""
    valid: bool | None = None
    """Whether rates may be corrected by this error."""
    refused: int
    """Refusals that the sensitivity rests on."""
    answered: int
    """Other replies that the specificity rests on."""


class JudgeSection(_Section):
    """The judge and its measured errors by language tag."""

    name: str
    languages: dict[str, JudgeErrorSection]


class BehaviourSection(_Section):
    """How the model treats its users' languages, before and after the edit; null after for an audit alone."""

    before: Behaviour
    after: Behaviour | None


class ControlSection(_Section):
    """A control arm: another treatment of the same model, on the same prompts or on some of them."""

    name: str
    description: str
    comparison: Comparison


class EditSection(_Section):
    """The manifest of the edit or steering; its entries depend on the method, and there may be others."""

    model_config = ConfigDict(extra="allow")

    method: str | None = None
    citation: str | None = None
    family: str | None = None
    anchor_languages: tuple[str, ...] = ()
    anchor_pairs: int | None = None
    """Pairs of prompts that the edit was fitted on."""
    keep_prompts: int | None = None
    """Prompts whose outputs the edit keeps."""
    layers: tuple[int, ...] = ()
    """Indices of the edited blocks."""
    model_fingerprint: str | None = None
    """Of the weights that the edit belongs to."""
    diagnostics: tuple[dict[str, Any], ...] = ()
    """One entry for each edited matrix or steered site."""
    seconds: dict[str, float] = Field(default_factory=dict)


class ResultDocument(_Section):
    """Everything that a run of lingualign measured.

    Rates are shares between 0 and 1, intervals are 95% and given as (low, high), languages are BCP-47 tags.
    """

    schema_name: Literal["lingualign-result/1"] | None = Field(default=None, alias="schema")
    """Absent in files written before the schema had a name."""
    model: ModelSection
    hardware: str
    reference: str
    """The language whose refusals are the target; left out of the means."""
    anchor_languages: tuple[str, ...]
    """Languages whose prompts the edit was fitted on."""
    languages: tuple[str, ...]
    """Audited languages, in the order of the audit."""
    split: Split
    """The split of the prompts that the figures are from."""
    prompts: PromptsSection
    judge: JudgeSection
    cells: tuple[Cell, ...]
    """Counts of the outcomes before the edit."""
    corrected: CorrectedFigures | None = None
    """Refusal corrected for the judge's error."""
    second_judge: AgreementFigures | None = None
    """A second judge's verdicts on the same replies; null where there was none."""
    behaviour: BehaviourSection | None = None
    prompt_controls: PromptControls | None = None
    """Whether length or translation of the prompts explains a language's gap."""
    utility: UtilityFigures | None = None
    """What the model can do beside refusing, and what the edit changes of it."""
    warnings: tuple[str, ...] = ()
    """What speaks against these prompts, such as overlapping sources."""
    verdict: str | None
    """The comparison in one sentence; null for an audit alone."""
    comparison: Comparison | None
    """Before against after; null for an audit alone."""
    gates: tuple[GateResult, ...]
    controls: tuple[ControlSection, ...]
    edit: EditSection | None
    settings: dict[str, Any]
    """The resolved settings; `lingualign.config.RunConfig` defines them."""
    timings: dict[str, float]
    """Seconds by stage, over all the processes that worked on the run."""
    versions: Mapping[str, str]
    """Versions of Python and of the packages that figures depend on."""


def result_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a `result.json`."""
    return {"$schema": _DRAFT, **ResultDocument.model_json_schema()}


if __name__ == "__main__":
    write_json(SCHEMA_FILE, result_schema())

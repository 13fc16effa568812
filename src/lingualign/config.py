"""Settings of a run: checked, frozen, read from TOML and written back next to every result."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lingualign.errors import ConfigError, DataError
from lingualign.languages import REFERENCE, check_languages

if TYPE_CHECKING:
    from lingualign.methods.sparse_weight_edit import SparseWeightEdit

#: How TOML, which has no null, writes None where that is not the default.
NONE = "none"


def _tags(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        return value
    try:
        return check_languages(list(value))
    except DataError as error:
        raise ValueError(str(error)) from None


def _none(value: Any) -> Any:
    return None if value == NONE else value


def _address(value: Any) -> Any:
    # Settings are written beside every result, so no password may stand in them.
    if isinstance(value, str) and not re.fullmatch(r"https?://[^@\s]+", value):
        raise ValueError("give an address like http://localhost:8000/v1, with no user or password in it")
    return value.rstrip("/") if isinstance(value, str) else value


Languages = Annotated[tuple[str, ...], BeforeValidator(_tags)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PromptSettings(_Settings):
    """Which prompts are used.

    Attributes:
        sources: `builtin`, or files such as `mine.csv` and `mine.jsonl:harmless`; mixed in this order.
        languages: audited languages; by default all that the sources have.
        anchor_languages: languages whose harmful prompts the edit is fitted on; by default all but the reference.
        keep_languages: languages of the keep set; by default the anchors' and the reference.
        languages_per_seed: fit on each seed in only this many of the languages, in turns: with many seeds as good, and
            faster.
        seeds_per_kind: audit only the first seeds of each kind.
        fit_seeds_per_kind: fit on only the first seeds of each kind.
        select_seeds_per_kind: where layers are chosen on the select split, audit only the first seeds of each kind.
    """

    sources: tuple[str, ...] = Field(default=("builtin",), min_length=1)
    languages: Languages | None = None
    anchor_languages: Languages | None = None
    keep_languages: Languages | None = None
    languages_per_seed: int | None = Field(default=None, ge=1)
    seeds_per_kind: int | None = Field(default=None, ge=1)
    fit_seeds_per_kind: int | None = Field(default=None, ge=2)
    select_seeds_per_kind: Annotated[int | None, BeforeValidator(_none)] = Field(default=14, ge=1)


class AuditSettings(_Settings):
    """How replies are generated: greedy, at most `max_new_tokens`, with an optional system line.

    At most `batch_size` chats are answered at once, with `auto` as many as the free memory has room for; it falls where
    the device runs out of memory, and changes memory and speed only.
    """

    max_new_tokens: int = Field(default=24, ge=1)
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = 64
    system: str | None = None


class EndpointSettings(_Settings):
    """The server that the audited model is behind, if it is behind one (docs/audits.md).

    Attributes:
        url: address of an OpenAI-compatible server up to and with the version; by default the model is in this process.
        concurrency: most requests under way at once.
        timeout: seconds to wait for one answer.
        key_variable: environment variable with the API key.
    """

    url: Annotated[str | None, BeforeValidator(_address)] = None
    concurrency: int = Field(default=8, ge=1)
    timeout: float = Field(default=120.0, gt=0)
    key_variable: str = Field(default="OPENAI_API_KEY", min_length=1)


class JudgeSettings(_Settings):
    """Which judges decide (docs/judges.md).

    Attributes:
        first: the judge whose verdicts are the figures.
        second: the judge whose agreement with the first is reported; `auto` is `e5` where its extra is installed.
        errors: what `lingualign judge evaluate` wrote for the first judge; by default the errors published with it.
    """

    first: str = Field(default="ngram", min_length=1)
    second: Annotated[str | None, BeforeValidator(_none)] = Field(default="auto", min_length=1)
    errors: str | None = None


class UtilitySettings(_Settings):
    """What is measured beside safety.

    Attributes:
        tasks: `lingualign_xcopa_TAG`, `lingualign_sib200_TAG`, or any task or group of lm-evaluation-harness.
        data: folder that holds `xcopa` and `sib200`, for the first two.
        limit: only the first documents of each task.
        seeds: only the first harmless seeds, for perplexity and divergence.
        chat_template: whether tasks are put into the model's chat template; lm-evaluation-harness leaves it out.
        perplexity: whether the perplexity of harmless prompts is measured.
        kl_tokens: reply tokens over which an edited model is compared with its base; 0 leaves that out.
        batch_size: requests or chats per batch; changes memory and speed only.
    """

    tasks: tuple[str, ...] = ()
    data: str | None = None
    limit: int | None = Field(default=None, ge=1)
    seeds: int | None = Field(default=None, ge=1)
    chat_template: bool = False
    perplexity: bool = True
    kl_tokens: int = Field(default=16, ge=0)
    batch_size: int = Field(default=16, ge=1)


class PositionSettings(_Settings):
    """Token positions that become feature rows; see `lingualign.features.positions.Positions`."""

    template_tokens: int = Field(default=5, ge=0)
    prompt_mean: bool = False
    reply_tokens: int = Field(default=4, ge=0)


class EditSettings(_Settings):
    """Parameters of `SparseWeightEdit`, with its names and defaults.

    One value more: `layers = "select"` fits windows of `layer_count` blocks and takes the one that does best on the
    select split (`lingualign.layer_search`).
    """

    family: Literal["output", "attention", "residual", "paper"] = "output"
    selection: Literal["paper", "probe", "random", "all"] = "all"
    fraction: float | None = Field(default=None, gt=0, le=1)
    magnitude_threshold: float = 2.0
    effect_threshold: float = 1.0
    layers: tuple[int, ...] | Literal["auto", "select"] = "auto"
    layer_count: int = Field(default=6, ge=1)
    target: Literal["pre", "post"] = "pre"
    rank: Annotated[int | None, BeforeValidator(_none)] = Field(default=128, ge=1)
    keep_weight: float = Field(default=10.0, ge=0)
    look_alike_weight: float = Field(default=3.0, gt=0)
    reference_weight: float = Field(default=9.0, gt=0)
    ridge: float = Field(default=1e-3, ge=0)
    null_space: float | None = Field(default=None, gt=0, lt=1)
    propagation: Literal["none", "sequential", "split"] = "sequential"
    teacher: Literal["reference", "own-language"] = "reference"
    solver: Literal["auto", "primal", "dual"] = "auto"
    positions: PositionSettings = PositionSettings()
    strength: float = 1.0
    seed: int = 0

    def method(self) -> SparseWeightEdit:
        """The method with these parameters."""
        from lingualign.features.positions import Positions
        from lingualign.methods.sparse_weight_edit import SparseWeightEdit

        values = {name: getattr(self, name) for name in type(self).model_fields}
        return SparseWeightEdit(**{**values, "positions": Positions(**self.positions.model_dump())})


class RunConfig(_Settings):
    """Everything a run depends on.

    Attributes:
        model: `small`, a checkpoint folder, or a hub id; of a model behind a server, its name there.
        precision: dtype of the weights; `auto` is bfloat16 where the device computes in it.
        device: such as `cpu` or `cuda`; by default a GPU if there is one.
        prompts, audit, endpoint, judge, utility, edit: settings of the stages.
        reference: language whose refusals are the target.
        seed: of the split of the user's own prompts and of the controls.
    """

    model: str = Field(min_length=1)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str | None = None
    prompts: PromptSettings = PromptSettings()
    audit: AuditSettings = AuditSettings()
    endpoint: EndpointSettings = EndpointSettings()
    judge: JudgeSettings = JudgeSettings()
    utility: UtilitySettings = UtilitySettings()
    edit: EditSettings = EditSettings()
    reference: Annotated[str, BeforeValidator(lambda value: _tags([value])[0])] = REFERENCE
    seed: int = 0


def build_config(values: Mapping[str, Any], origin: str = "settings") -> RunConfig:
    """A checked configuration from nested plain values.

    Args:
        values: as in the TOML file.
        origin: where they come from, for the error.

    Raises:
        ConfigError: one line for each wrong setting; an unknown one names the nearest known.
    """
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        # A union reports each of its branches; the first says enough.
        first = {_named(problem): problem for problem in reversed(error.errors())}
        lines = [f"{origin}: {_explain(problem)}" for problem in reversed(first.values())]
        raise ConfigError("\n".join(lines)) from None


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file, not yet checked.

    Raises:
        ConfigError: the file is missing, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror}); give --config a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} is not valid TOML: {error}; put it right or make a new one from a run's config.toml"
        ) from None


def load_config(path: Path) -> RunConfig:
    """Reads and checks a TOML file.

    Raises:
        ConfigError: the file is missing, is not TOML, or holds a wrong setting.
    """
    return build_config(read_toml(path), str(path))


def dump_config(config: RunConfig) -> str:
    """The resolved settings as TOML; `load_config` reads the same configuration back."""
    import tomli_w

    return tomli_w.dumps(_plain(config))


def _plain(settings: BaseModel) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            values[name] = _plain(value)
        elif value is not None:
            values[name] = list(value) if isinstance(value, tuple) else value
        elif field.default is not None and not field.is_required():
            values[name] = NONE
    return values


def _named(problem: Any) -> str:
    """The setting that a problem is about. A union's branches follow its name in the location; they are left out."""
    if problem["type"] == "extra_forbidden":
        return ".".join(str(part) for part in problem["loc"])
    return ".".join(_known_path(problem["loc"]))


def _explain(problem: Any) -> str:
    name = _named(problem)
    if problem["type"] != "extra_forbidden":
        if problem["type"] == "missing":
            return f"{name} is missing; set it"
        shown = repr(problem["input"])
        shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
        return f"{name}: {problem['msg'].removeprefix('Value error, ')} (got {shown})"
    *parents, unknown = (str(part) for part in problem["loc"])
    known = list(_fields(parents))
    nearest = difflib.get_close_matches(unknown, known, n=1, cutoff=0.0)[0]
    return f"unknown setting {name}; did you mean {'.'.join([*parents, nearest])}?"


def _fields(parents: Sequence[str]) -> Mapping[str, Any]:
    model: type[BaseModel] = RunConfig
    for name in parents:
        annotation = model.model_fields[name].annotation
        assert isinstance(annotation, type)
        model = annotation
    return model.model_fields


def _known_path(location: tuple[int | str, ...]) -> list[str]:
    names: list[str] = []
    fields = _fields([])
    for part in location:
        if part not in fields:
            break
        names.append(str(part))
        annotation = fields[str(part)].annotation
        fields = annotation.model_fields if isinstance(annotation, type) and issubclass(annotation, BaseModel) else {}
    return names

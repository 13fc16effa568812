"""Options that several commands share, and the configuration made from them and from a TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from lingualign.config import RunConfig

Model = Annotated[str, typer.Argument(help="`small`, a checkpoint folder, or a hub id.", show_default=False)]
OptionalModel = Annotated[
    str | None,
    typer.Argument(help="`small`, a checkpoint folder, or a hub id; or set it in --config.", show_default=False),
]
Languages = Annotated[
    str | None, typer.Option(help="Audited languages by tag, such as en,zh,th; by default all of the prompts'.")
]
Anchors = Annotated[
    str | None, typer.Option(help="Languages the edit is fitted on; by default all audited but the reference.")
]
Keep = Annotated[str | None, typer.Option(help="Languages of the keep set; by default the anchors' and the reference.")]
Prompts = Annotated[
    list[str] | None,
    typer.Option(help="`builtin`, FILE.csv or FILE.jsonl:harmless and the like; repeat to mix. By default builtin."),
]
Config = Annotated[Path | None, typer.Option(help="TOML file of settings; options on the command line win.")]
Out = Annotated[
    Path | None, typer.Option(help="Run folder; by default one that the same command finds again.", show_default=False)
]
SeedsPerKind = Annotated[int | None, typer.Option(help="Audit only the first N seeds of each kind.", min=1)]
MaxNewTokens = Annotated[int | None, typer.Option(help="Length limit of a reply, in tokens.", min=1)]
BatchSize = Annotated[
    str | None, typer.Option(help="Most chats at once, or `auto` for what memory has room for.", metavar="INTEGER|auto")
]
Endpoint = Annotated[
    str | None,
    typer.Option(help="Address of an OpenAI-compatible server that knows MODEL by this name.", metavar="URL"),
]
Concurrency = Annotated[int | None, typer.Option(help="Most requests to the server at once.", min=1)]
Timeout = Annotated[float | None, typer.Option(help="Seconds to wait for the server's answer.", min=0.1)]
KeyVariable = Annotated[str | None, typer.Option(help="Environment variable with the server's API key.")]
JudgeOption = Annotated[
    str | None, typer.Option("--judge", help="Who decides: ngram, e5, qwen3guard, ...; see `lingualign judge list`.")
]
SecondJudge = Annotated[str | None, typer.Option(help="A second judge, for agreement; by default e5 where installed.")]
JudgeErrors = Annotated[str | None, typer.Option(help="Errors that `lingualign judge evaluate --out` wrote.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task", help="A task of lm-evaluation-harness, or lingualign_xcopa_th and the like; repeat for more."
    ),
]
TaskData = Annotated[str | None, typer.Option(help="Folder that holds xcopa and sib200, for lingualign_ tasks.")]
TaskLimit = Annotated[int | None, typer.Option(help="Only the first N documents of each task.", min=1)]
PrecisionOption = Annotated[str | None, typer.Option("--precision", help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default a GPU if there is one.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the split of your own prompts and of the controls.")]
Require = Annotated[
    list[str] | None,
    typer.Option(
        help="A gate such as worst_asr<=0.10; exit code 1 where it does not hold. Repeatable.", metavar="GATE"
    ),
]
Controls = Annotated[bool, typer.Option("--controls", help="Audit placebo edits on the same prompts too.")]
ShowText = Annotated[bool, typer.Option("--show-text", help="Show prompts and replies in the report.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only the verdict and the paths.")]


def make_config(
    config: Path | None = None,
    *,
    model: str | None = None,
    languages: str | None = None,
    anchors: str | None = None,
    keep: str | None = None,
    prompts: list[str] | None = None,
    seeds_per_kind: int | None = None,
    max_new_tokens: int | None = None,
    batch_size: str | None = None,
    endpoint: str | None = None,
    concurrency: int | None = None,
    timeout: float | None = None,
    key_variable: str | None = None,
    judge: str | None = None,
    second_judge: str | None = None,
    judge_errors: str | None = None,
    tasks: list[str] | None = None,
    task_data: str | None = None,
    task_limit: int | None = None,
    precision: str | None = None,
    device: str | None = None,
    seed: int | None = None,
    defaults: dict[str, Any] | None = None,
) -> RunConfig:
    """The settings: defaults of the command, under the file's, under the command line's.

    Raises:
        ConfigError: the file cannot be read, or a setting is wrong.
    """
    from lingualign.config import build_config, read_toml

    given = {
        "model": model,
        "precision": precision,
        "device": device,
        "seed": seed,
        "prompts": {
            "sources": prompts or None,
            "languages": _tags(languages),
            "anchor_languages": _tags(anchors),
            "keep_languages": _tags(keep),
            "seeds_per_kind": seeds_per_kind,
        },
        "audit": {"max_new_tokens": max_new_tokens, "batch_size": batch_size},
        "endpoint": {
            "url": endpoint,
            "concurrency": concurrency,
            "timeout": timeout,
            "key_variable": key_variable,
        },
        "utility": {"tasks": tasks or None, "data": task_data, "limit": task_limit},
        "judge": {"first": judge, "second": second_judge, "errors": judge_errors},
    }
    values = _merged(defaults or {}, read_toml(config) if config else {})
    return build_config(_merged(values, given), str(config) if config else "settings")


def default_out(config: RunConfig, *more: str) -> Path:
    """`lingualign-runs/MODEL-HASH`: the same settings find the same folder, others another."""
    import re

    from lingualign.runs import content_hash

    speed: dict[str, Any] = {
        "device": True,
        "audit": {"batch_size"},
        "endpoint": {"concurrency", "timeout", "key_variable"},
    }
    settings = config.model_dump(mode="json", exclude=speed)
    name = re.sub(r"[^\w.-]+", "-", config.model.rstrip("/").rpartition("/")[2]).strip("-.") or "model"
    return Path("lingualign-runs") / f"{name}-{content_hash([settings, *more])[:8]}"


def _tags(text: str | None) -> list[str] | None:
    return None if text is None else [tag.strip() for tag in text.split(",") if tag.strip()]


def _merged(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """`high` over `low`, section by section; None in `high` says nothing."""
    result = dict(low)
    for key, value in high.items():
        if isinstance(value, dict):
            below = result.get(key)
            result[key] = _merged(below if isinstance(below, dict) else {}, value)
        elif value is not None:
            result[key] = value
    return result

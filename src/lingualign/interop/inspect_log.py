"""The arms of a run as evaluation logs of Inspect (UK AI Security Institute), which its viewer and data frames open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lingualign.errors import MissingDependency
from lingualign.evaluate.metrics import cells
from lingualign.evaluate.schema import Reply
from lingualign.interop.arms import read_arms, storable
from lingualign.results import RESULT_FILE, prompt_texts
from lingualign.runs import content_hash

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample, EvalScore

TASK = "lingualign-audit"
SCORE = "outcome"
#: In a log's metadata: whether its samples hold the texts, or stand-ins.
TEXT_SHOWN = "text_shown"


def write_inspect_logs(folder: Path, out: Path, *, show_text: bool = False) -> list[Path]:
    """Writes one `.eval` log for each arm of a finished run: `inspect view --log-dir OUT` shows them.

    A sample is a prompt, with the judge's outcome as its score; the log's metrics are refusal rates by kind and
    language, with n and the 95% Wilson interval in their metadata. The target says what a safe model does.

    Args:
        folder: the run folder.
        out: folder for the logs; a log of the same run and arm is replaced.
        show_text: whether prompts and replies are written; otherwise their lengths stand in for them.

    Raises:
        UserError: the folder holds no finished run, or its prompts are asked for and have changed.
        MissingDependency: inspect-ai is not installed.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError:
        raise MissingDependency("inspect-ai", "inspect") from None

    run = read_arms(folder)
    prompts = prompt_texts(folder, run.figures, "convert") if show_text else None
    # The run's own time, so that the same run gives the same files.
    made = datetime.fromtimestamp((folder / RESULT_FILE).stat().st_mtime, UTC).replace(microsecond=0)
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for arm, replies in run.replies.items():
        log = _log(run.figures, arm, replies, prompts, made.isoformat())
        # The viewer lists files whose names start with a time.
        path = out / f"{made:%Y-%m-%dT%H-%M-%S+00-00}_{TASK}-{arm}_{log.eval.task_id}.eval"
        partial = path.with_name(f".{path.name}.partial")
        write_eval_log(log, partial, format="eval")
        partial.replace(path)
        paths.append(path)
    return paths


def _log(
    figures: Mapping[str, Any],
    arm: str,
    replies: Sequence[Reply],
    prompts: Mapping[tuple[str, str, str], str] | None,
    made: str,
) -> EvalLog:
    from inspect_ai.log import (
        EvalConfig,
        EvalDataset,
        EvalLog,
        EvalPlan,
        EvalPlanStep,
        EvalResults,
        EvalSpec,
        EvalStats,
    )
    from inspect_ai.model import GenerateConfig, ModelUsage

    model = storable(figures["model"]["name"])
    judge = figures["judge"]["name"]
    samples = [_sample(reply, model, judge, prompts) for reply in replies]
    identity = content_hash([figures["model"]["fingerprint"], figures["prompts"], figures["settings"], judge])
    generate_config = GenerateConfig(max_tokens=figures["settings"]["audit"]["max_new_tokens"])
    tokens = sum(reply.tokens for reply in replies)
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=made,
            task=TASK,
            task_id=content_hash([identity, arm]),
            eval_id=content_hash([identity, arm]),
            run_id=identity,
            task_display_name=f"{TASK} {arm}",
            task_args={"arm": arm, "reference": figures["reference"]},
            dataset=EvalDataset(
                name=figures["split"], samples=len(samples), sample_ids=[str(sample.id) for sample in samples]
            ),
            model=model,
            model_args={"fingerprint": figures["model"]["fingerprint"], "dtype": figures["model"]["dtype"]},
            model_generate_config=generate_config,
            config=EvalConfig(),
            packages={"lingualign": figures["versions"]["lingualign"]},
            metadata={
                "hardware": figures["hardware"],
                "verdict": figures["verdict"],
                "prompts": figures["prompts"],
                TEXT_SHOWN: prompts is not None,
            },
        ),
        plan=EvalPlan(steps=[EvalPlanStep(solver="generate")], config=generate_config),
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=_scores(replies, judge)),
        stats=EvalStats(
            started_at=made,
            completed_at=made,
            model_usage={model: ModelUsage(output_tokens=tokens, total_tokens=tokens)},
        ),
        samples=samples,
    )


def _scores(replies: Sequence[Reply], judge: str) -> list[EvalScore]:
    from inspect_ai.log import EvalMetric, EvalScore

    metrics = {}
    for cell in cells(replies):
        low, high = cell.refusal_interval
        name = f"refused {cell.kind} {cell.language}"
        metrics[name] = EvalMetric(name=name, value=cell.refusal_rate, metadata={"n": cell.n, "low": low, "high": high})
    unread = sum(reply.outcome == "unparsed" for reply in replies)
    return [
        EvalScore(
            name=SCORE,
            scorer=judge,
            scored_samples=len(replies) - unread,
            unscored_samples=unread,
            metrics=metrics,
        )
    ]


def _sample(reply: Reply, model: str, judge: str, prompts: Mapping[tuple[str, str, str], str] | None) -> EvalSample:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageUser, ModelOutput, ModelUsage
    from inspect_ai.scorer import Score

    if prompts is None:
        prompt, text = f"[{reply.kind} prompt not shown]", f"[reply of {len(reply.text)} characters not shown]"
    else:
        prompt, text = storable(prompts[reply.key]), storable(reply.text)
    output = ModelOutput.from_content(model, text, stop_reason="stop" if reply.finished else "max_tokens")
    output.usage = ModelUsage(output_tokens=reply.tokens, total_tokens=reply.tokens)
    return EvalSample(
        id="/".join(reply.key),
        epoch=1,
        input=prompt,
        target="refused" if reply.kind == "harmful" else "answered",
        messages=[ChatMessageUser(content=prompt), output.message],
        output=output,
        scores={
            SCORE: Score(
                value=reply.outcome,
                explanation=f"judge {judge}, probability of a refusal {reply.score:.3f}",
                metadata={"probability": reply.score, "unsafe": reply.unsafe, "reply_language": reply.reply_language},
            )
        },
        metadata={"kind": reply.kind, "seed_id": reply.seed_id, "language": reply.language},
        model_usage={model: output.usage},
    )

"""An audit in its run folder, whether the model is in this process or behind a server."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

from lingualign import __version__
from lingualign.audited import AuditedModel
from lingualign.config import RunConfig, dump_config
from lingualign.endpoint import Endpoint
from lingualign.errors import ConfigError, NotEnoughMemory
from lingualign.evaluate.audit import run_audit
from lingualign.evaluate.endpoint_engine import EndpointEngine
from lingualign.evaluate.engine import Engine
from lingualign.evaluate.gates import Gate
from lingualign.evaluate.judge import Judge
from lingualign.evaluate.judges.card import judge_card
from lingualign.evaluate.judges.registry import make_judge, second_judge
from lingualign.evaluate.schema import Reply
from lingualign.evaluate.second import judge_again
from lingualign.evaluate.store import ReplyStore
from lingualign.evaluate.utility.measure import Utility
from lingualign.events import Progress, silent
from lingualign.measures import SecondOpinion, UtilityFigures, utility_figures
from lingualign.prompts import RunPrompts, prompts_hash, resolve_prompts
from lingualign.report.data import Arm
from lingualign.results import Result, write_result
from lingualign.runs import RunFolder, content_hash, write_text
from lingualign.treatments import Treatment


class AuditRun(ABC):
    """A model, its prompts and a locked folder; each method is one step and resumes by itself.

    Attributes:
        config: the resolved settings.
        prompts: what is audited.
        audited: what is known of the model.
        folder: where everything is written.
        judge: decides on every reply.
        second: the second judge, if there is one.
        card: what is known of the judge's errors.
        progress: called as work goes on.
    """

    def __init__(
        self, config: RunConfig, prompts: RunPrompts, audited: AuditedModel, folder: RunFolder, progress: Progress
    ) -> None:
        self.config = config
        self.prompts = prompts
        self.audited = audited
        self.folder = folder
        cache = folder.path / "judged" / "outputs.jsonl"
        self.judge: Judge = make_judge(config.judge.first, cache=cache, device=config.device)
        self.second: Judge | None = second_judge(config.judge.second, cache=cache, device=config.device)
        # Read now, so that a wrong file costs no audit.
        self.card = judge_card(self.judge.name, Path(config.judge.errors) if config.judge.errors else None)
        self.progress = progress

    def before(self) -> list[Reply]:
        """Audits the model as it is."""
        return self._audit("before.jsonl", "audit before")

    def finish(
        self,
        before: Sequence[Reply],
        after: Sequence[Reply] | None = None,
        treatment: Treatment | None = None,
        *,
        arms: Sequence[Arm] = (),
        gates: Sequence[Gate] = (),
        show_text: bool = False,
    ) -> Result:
        """Computes all figures, and writes `result.json` and `report.html`."""
        return write_result(
            self.folder,
            self.config,
            self.prompts,
            self.audited,
            self.card,
            before,
            after,
            treatment,
            arms=arms,
            gates=gates,
            second=self._second_opinion(before, after),
            utility=self._utility(before, after, treatment),
            show_text=show_text,
        )

    @abstractmethod
    def _engine(self, system: str | None) -> Engine:
        """What answers the prompts; `system` takes the place of the settings' system line."""

    @abstractmethod
    def _utility(
        self, before: Sequence[Reply], after: Sequence[Reply] | None, treatment: Treatment | None
    ) -> UtilityFigures: ...

    def _audit(self, file: str, stage: str, *, system: str | None = None) -> list[Reply]:
        store = ReplyStore(self.folder.path / file)
        with self.folder.timed(stage), memory_errors():
            return run_audit(
                self._engine(system), self.judge, self.prompts.report, store, progress=self.progress, stage=stage
            )

    def _second_opinion(self, before: Sequence[Reply], after: Sequence[Reply] | None) -> SecondOpinion | None:
        judge = self.second
        if judge is None:
            return None

        def judged(replies: Sequence[Reply], file: str) -> tuple[Reply, ...]:
            store = ReplyStore(self.folder.path / "judged" / content_hash(judge.name) / file)
            with self.folder.timed("second judge"), memory_errors():
                return tuple(
                    judge_again(
                        judge, replies, self.prompts.report, store, progress=self.progress, stage="second judge"
                    )
                )

        return SecondOpinion(
            judge.name,
            judged(before, "before.jsonl"),
            None if after is None else judged(after, "after.jsonl"),
        )


class ServedRun(AuditRun):
    """An audit of a model behind a server. Made by `open_served`.

    What needs weights or tokenizer is left out: perplexity, divergence, tasks, n-grams of replies, prompt lengths.
    """

    def _engine(self, system: str | None) -> EndpointEngine:
        server = self.config.endpoint
        assert server.url is not None
        return EndpointEngine(
            Endpoint(
                server.url,
                self.config.model,
                key_variable=server.key_variable,
                timeout=server.timeout,
                concurrency=server.concurrency,
            ),
            max_new_tokens=self.config.audit.max_new_tokens,
            system=system or self.config.audit.system,
        )

    def _utility(
        self, before: Sequence[Reply], after: Sequence[Reply] | None, _treatment: Treatment | None
    ) -> UtilityFigures:
        return utility_figures(Utility({}, {}, {}), None, before, after, None)


@contextlib.contextmanager
def open_served(config: RunConfig, out: Path, progress: Progress = silent) -> Iterator[ServedRun]:
    """Creates or resumes the run folder of a model behind the server `config.endpoint`, for a `with` block.

    No server is asked before the first reply.

    Raises:
        ConfigError: tasks are asked for, which need the weights.
        DataError: the prompts cannot be read.
        FingerprintMismatch: the folder was made with another model, server, prompts or settings.
    """
    assert config.endpoint.url is not None
    if config.utility.tasks:
        raise ConfigError(
            "tasks score the model's probabilities, which a server does not give; leave out utility.tasks"
        )
    prompts = resolve_prompts(config)
    audited = AuditedModel.served(config.model, config.endpoint.url)
    known = {
        **audit_fingerprint(config, prompts),
        "model weights": audited.fingerprint,
        "precision": "the server's",
    }
    with RunFolder.open(out, known) as folder:
        write_text(out / "config.toml", dump_config(config))
        yield ServedRun(config, prompts, audited, folder, progress)


def audit_fingerprint(config: RunConfig, prompts: RunPrompts) -> dict[str, str]:
    """What the replies of an audit depend on beside the weights."""
    # Batch size is left out: it changes memory and speed, and must be free to fall when memory runs out.
    audit = config.audit.model_dump(exclude={"batch_size"})
    return {
        "lingualign version": __version__,
        "model": config.model,
        "audited prompts": prompts_hash(prompts.report),
        **{f"audit setting {name}": str(value) for name, value in audit.items()},
        "judge": make_judge(config.judge.first).name,
    }


@contextlib.contextmanager
def memory_errors() -> Iterator[None]:
    """A device that runs out of memory is something the user can act on."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise NotEnoughMemory(
            "the device ran out of memory; lower --batch-size and give the same command, which resumes"
        ) from error

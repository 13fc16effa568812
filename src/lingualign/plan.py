"""What a run will need, before anything heavy is loaded: matched modules, tokens, time, memory, disk, stage by stage.

Structure and sizes are exact (the model is built without weights, on torch's meta device). Seconds are an estimate from
half a second of measuring one block of the model on this machine. The start of Python and the reading of the weights
are not among them; nor are a second judge, a guard and tasks, which depend on what is not read here.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lingualign.config import RunConfig
from lingualign.edit import CONFIG_MARK
from lingualign.errors import ConfigError, FingerprintMismatch, NotEnoughMemory, UserError
from lingualign.evaluate.statistics import minimum_detectable_difference
from lingualign.footprint import ModelSizes
from lingualign.hardware import GIBIBYTE, check_device, free_disk, free_memory, hardware_line, resident_memory
from lingualign.models.changed import require_editable
from lingualign.models.coverage import Coverage, coverage
from lingualign.models.load import SMALL_MODEL, causal_class, default_device, resolve_precision
from lingualign.models.locate import locate_mlps
from lingualign.models.matrices import MlpMatrices
from lingualign.needs import REPORT_BYTES, Need, Needs
from lingualign.prompts import RunPrompts

Job = Literal["run", "audit", "edit", "streamed edit", "verify"]
#: Jobs that fit an edit, and those that do nothing else.
_FITS, _ONLY_FITS = ("run", "edit", "streamed edit"), ("edit", "streamed edit")
#: Of main memory, what libraries take that are imported after the plan: scikit-learn, matplotlib.
LATER_BYTES = int(0.15 * GIBIBYTE)


@dataclass(frozen=True)
class Stage:
    """What one stage of a run needs; named as in the run folder's timings.

    Attributes:
        name: of the stage; `loading` is the reading of the weights, whose time is not planned.
        seconds: estimate.
        memory_bytes: of main memory at its peak, the process itself included.
        device_bytes: of a GPU's memory at its peak; 0 without one.
        disk_bytes: that it leaves in the run folder.
    """

    name: str
    seconds: float
    memory_bytes: int
    device_bytes: int
    disk_bytes: int


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Attributes:
        model, parameters, dtype, architecture: the model.
        hardware: the machine in one line.
        blocks: number of transformer blocks.
        matched: the MLP matrices of every block.
        coverage: every matrix of every block by role.
        edited_blocks: number of blocks the edit changes.
        languages: audited languages.
        report_prompts, anchor_pairs, keep_prompts: numbers of prompts.
        report_tokens, fit_tokens: tokens read in one audit, and in the fit.
        reply_tokens: most tokens generated in one audit.
        harmful_prompts: fewest harmful prompts in any audited language.
        detectable: smallest true change of refusal in that language that a comparison finds with power 0.8, two-sided
            at 5%, and the same when the test is one of as many as there are languages (Bonferroni, Holm's first step);
            None in place of one that cannot be found. None for a job without a comparison.
        stages: what each stage needs, in order.
        disturbed: share of the processors that other processes took while the machine was measured.
        process_bytes: of main memory that this process has already.
        free_memory_bytes, free_device_bytes, free_disk_bytes: what there is; of a GPU 0 without one.
    """

    model: str
    parameters: int
    dtype: str
    architecture: str
    hardware: str
    blocks: int
    matched: tuple[MlpMatrices, ...]
    coverage: Coverage
    edited_blocks: int
    languages: tuple[str, ...]
    report_prompts: int
    anchor_pairs: int
    keep_prompts: int
    report_tokens: int
    fit_tokens: int
    reply_tokens: int
    harmful_prompts: int
    detectable: tuple[float | None, float | None] | None
    stages: tuple[Stage, ...]
    disturbed: float
    process_bytes: int
    free_memory_bytes: int
    free_device_bytes: int
    free_disk_bytes: int

    @property
    def seconds(self) -> dict[str, float]:
        """Estimate by stage."""
        return {stage.name: stage.seconds for stage in self.stages if stage.seconds}

    @property
    def memory_bytes(self) -> int:
        """Main memory at the peak."""
        return max(stage.memory_bytes for stage in self.stages)

    @property
    def device_bytes(self) -> int:
        """A GPU's memory at the peak; 0 without one."""
        return max(stage.device_bytes for stage in self.stages)

    @property
    def disk_bytes(self) -> int:
        """Of the run folder at the end."""
        return sum(stage.disk_bytes for stage in self.stages)

    def check(self) -> None:
        """Refuses a plan that the machine cannot carry.

        Raises:
            NotEnoughMemory: memory or disk is too small.
        """
        smaller = "take a smaller model, --batch-size or precision"
        for what, needed, there, remedy in (
            ("memory", self.memory_bytes - self.process_bytes, self.free_memory_bytes, smaller),
            ("GPU memory", self.device_bytes, self.free_device_bytes, smaller),
            ("disk", self.disk_bytes, self.free_disk_bytes, "free some, or choose another --out folder"),
        ):
            if needed > there:
                sizes = f"{needed / GIBIBYTE:.1f} GiB of {what} and {there / GIBIBYTE:.1f} GiB are free"
                raise NotEnoughMemory(f"this run needs about {sizes}; {remedy}")


def make_plan(config: RunConfig, prompts: RunPrompts, out: Path, job: Job = "run") -> Plan:
    """Plans a run.

    Args:
        config: the settings.
        prompts: the resolved prompts.
        out: the run folder, for its disk; need not exist.
        job: what is done: an audit, the fit of an edit (of a model in memory, or one block at a time), two audits, or
            all of these.

    Raises:
        ConfigError: the model is behind a server.
        UserError: the model cannot be found.
        UnsupportedModel: its MLPs cannot be found, or no block can be edited where the job does, or it has no chat
            template.
    """
    refuse_served(config)
    device = config.device or default_device()
    check_device(device)
    dtype = resolve_precision(config.precision, device)
    model, tokenizer = _skeleton(config.model)
    if job in _FITS:
        refuse_edited(model)
    mlps = locate_mlps(model)
    if job in _FITS:
        require_editable(mlps, config.edit.family)
    sizes = _sizes(model, mlps, dtype)
    fits, audits = job in _FITS, job not in _ONLY_FITS
    process = resident_memory()
    needs = Needs(config, prompts, model, tokenizer, mlps, sizes, dtype=dtype, device=device)
    audited = needs.audited if audits else []
    counts = Counter(prompt.language for prompt in prompts.report if prompt.kind == "harmful")
    harmful = min(counts.values(), default=0)
    anchors = prompts.anchors() if fits else None
    weights = sizes.weights
    if job == "streamed edit":
        head = sizes.vocabulary * sizes.hidden if config.edit.positions.reply_tokens else 0
        weights = _streamed_bytes(model, mlps, sizes.width, head)
    on_gpu = device.startswith("cuda")
    # For products in half precision, a processor's library keeps the largest matrix in an order of its own.
    plain = on_gpu or dtype == "float32" or not (audits or config.edit.positions.reply_tokens)
    reordered = 0 if plain else sizes.vocabulary * sizes.hidden * sizes.width

    def stage(name: str, need: Need) -> Stage:
        on_device = weights + need.on_device + (0 if name == "loading" else reordered)
        main = process + LATER_BYTES + need.in_main + (0 if on_gpu else on_device)
        return Stage(name, need.seconds, main, on_device if on_gpu else 0, need.on_disk)

    return Plan(
        model=config.model,
        parameters=sizes.parameters,
        dtype=dtype,
        architecture=type(model).__name__,
        hardware=hardware_line(device),
        blocks=len(mlps),
        matched=tuple(mlps),
        coverage=coverage(model, mlps),
        edited_blocks=needs.edited if fits else 0,
        languages=prompts.report.languages,
        report_prompts=len(audited),
        anchor_pairs=len(anchors.pairs) if anchors else 0,
        keep_prompts=len(anchors.keep) if anchors else 0,
        report_tokens=sum(len(chat.ids) for chat in audited),
        fit_tokens=needs.fit_sizes.tokens if fits else 0,
        reply_tokens=config.audit.max_new_tokens * len(audited),
        harmful_prompts=harmful,
        detectable=_detectable(harmful, len(prompts.report.languages)) if job in ("run", "verify") else None,
        stages=tuple(stage(name, need) for name, need in _needs_by_stage(config, needs, sizes, job, on_gpu=on_gpu)),
        disturbed=needs.disturbed,
        process_bytes=process,
        free_memory_bytes=free_memory("cpu"),
        free_device_bytes=free_memory(device) if on_gpu else 0,
        free_disk_bytes=free_disk(out.absolute()),
    )


def _needs_by_stage(
    config: RunConfig, needs: Needs, sizes: ModelSizes, job: Job, *, on_gpu: bool
) -> list[tuple[str, Need]]:
    """The stages of a job, in order."""
    # Weights that go to a GPU are in main memory first.
    files = sizes.parameters * sizes.stored_width if on_gpu else sizes.converted
    stages = [] if job == "streamed edit" else [("loading", Need(in_main=files))]
    audit = Need() if job in _ONLY_FITS else needs.audit()
    if job not in _ONLY_FITS:
        stages.append(("audit before", audit))
    if job in _FITS:
        fit = needs.fit(needs.fit_sizes, streamed=job == "streamed edit")
        if config.edit.layers == "select":
            stages.append(("choosing layers", needs.choosing(fit)))
        stages.append(("edit", fit))
    if job in ("run", "verify"):
        stages.append(("audit after", needs.after_edit(audit)))
    if job not in _ONLY_FITS:
        # What the audits took in small pieces does not go back to the system.
        kept = 0 if on_gpu else audit.on_device
        utility = needs.utility(edited=False)
        stages.append(("utility before", replace(utility, in_main=kept, on_disk=utility.on_disk + REPORT_BYTES)))
        if job != "audit":
            stages.append(("utility after", replace(needs.utility(edited=True), in_main=kept)))
    return stages


def _sizes(model: Any, mlps: list[MlpMatrices], dtype: str) -> ModelSizes:
    import torch

    stored = getattr(model.config, "dtype", None) or torch.float32
    return ModelSizes(
        config=model.config.get_text_config(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        hidden=mlps[0].hidden_size,
        inner=mlps[0].inner_size,
        width=getattr(torch, dtype).itemsize,
        stored_width=stored.itemsize,
    )


def _streamed_bytes(model: Any, mlps: list[MlpMatrices], width: int, head: int) -> int:
    """Bytes of weights that a streamed model has in memory at its peak: a block as it is read and as it is computed
    with, and the dense change of one matrix; or the output projection, where replies are generated."""
    blocks = [sum(weight.numel() for weight in model.get_submodule(mlp.block).parameters()) for mlp in mlps]
    largest: int = max(blocks)
    return max(2 * width * largest + 4 * mlps[0].hidden_size * mlps[0].inner_size, width * head)


def _detectable(prompts: int, languages: int) -> tuple[float | None, float | None]:
    strict = 1 - 0.05 / max(1, languages)
    alone, among = (minimum_detectable_difference(prompts, confidence=level) for level in (0.95, strict))
    return (alone if math.isfinite(alone) else None, among if math.isfinite(among) else None)


def refuse_edited(model: Any) -> None:
    """Refuses to edit a model that has an edit baked in.

    Raises:
        FingerprintMismatch: its configuration says so.
    """
    if getattr(model.config, CONFIG_MARK, None):
        raise FingerprintMismatch("this model is already edited by lingualign; give its base model instead")


def refuse_served(config: RunConfig) -> None:
    """Refuses to do without a model's weights.

    Raises:
        ConfigError: the model is behind a server.
    """
    if config.endpoint.url:
        raise ConfigError(
            "only an audit can do without the model's weights; leave endpoint.url out and give model a checkpoint"
        )


def _skeleton(name: str) -> tuple[Any, Any]:
    """The model without weights and its tokenizer."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoTokenizer

    source = name
    if name == SMALL_MODEL:
        from lingualign.organism.build import small_model_folder

        source = str(small_model_folder())
    elif name.startswith((".", "/", "~")) and not Path(name).is_dir():
        raise UserError(f"there is no folder {name}; give a local checkpoint folder, a hub id, or `small`")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        with init_empty_weights():
            config = AutoConfig.from_pretrained(source)
            model = causal_class(config).from_config(config)
        # Moving to the meta device unties shared embeddings; counted twice they would double the small model.
        model.tie_weights()
    except (OSError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"cannot load {name}: {first_line} (give a local folder, a hub id you can reach, or `small`)"
        ) from error
    return model, tokenizer

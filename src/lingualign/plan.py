"""What a run will need, before anything heavy is loaded: matched modules, tokens, time, memory, disk.

Structure and sizes are exact (the model is built without weights, on torch's meta device). Time is an estimate from the
number of multiplications and a short measurement of this machine's matrix products: right within a factor of two or so.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lingualign.config import RunConfig
from lingualign.data.schema import Prompt
from lingualign.edit import CONFIG_MARK
from lingualign.errors import ConfigError, FingerprintMismatch, NotEnoughMemory, UserError
from lingualign.evaluate.batch_size import bytes_per_chat
from lingualign.evaluate.statistics import minimum_detectable_difference
from lingualign.hardware import GIBIBYTE, check_device, free_disk, free_memory, hardware_line
from lingualign.layer_search import candidate_windows
from lingualign.models.chat import encode_chats
from lingualign.models.coverage import Coverage, coverage
from lingualign.models.load import SMALL_MODEL, causal_class, default_device, resolve_precision
from lingualign.models.locate import locate_mlps
from lingualign.models.matrices import MlpMatrices, require_editable
from lingualign.prompts import RunPrompts

Job = Literal["run", "audit", "edit", "streamed edit", "verify"]
#: Jobs that fit an edit, and those that do nothing else.
_FITS, _ONLY_FITS = ("run", "edit", "streamed edit"), ("edit", "streamed edit")
#: What Python and the libraries take before any weight is there.
LIBRARIES_BYTES = int(0.7 * GIBIBYTE)
#: Share of the measured speed of large products that a model reaches: reading prompts, and one token at a time.
PROMPT_EFFICIENCY, REPLY_EFFICIENCY = 0.6, 0.25


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
        seconds: estimate by stage.
        memory_bytes, free_memory_bytes: at the peak, and what there is.
        disk_bytes, free_disk_bytes: in the run folder, and what there is.
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
    seconds: dict[str, float]
    memory_bytes: int
    free_memory_bytes: int
    disk_bytes: int
    free_disk_bytes: int

    def check(self) -> None:
        """Refuses a plan that the machine cannot carry.

        Raises:
            NotEnoughMemory: memory or disk is too small.
        """
        for what, needed, there, remedy in (
            ("memory", self.memory_bytes, self.free_memory_bytes, "take a smaller model, --batch-size or precision"),
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
        require_editable(mlps)
    text = model.config.get_text_config()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    embeddings = text.vocab_size * text.hidden_size
    working = max(1, parameters - embeddings * (1 if text.tie_word_embeddings else 2))

    def lengths(chosen: list[Prompt]) -> list[int]:
        return [len(chat.ids) for chat in encode_chats(tokenizer, [prompt.text for prompt in chosen])]

    audited = [] if job in _ONLY_FITS else lengths(list(prompts.report))
    replies = config.audit.max_new_tokens * len(audited)
    counts = Counter(prompt.language for prompt in prompts.report if prompt.kind == "harmful")
    harmful = min(counts.values(), default=0)
    flops = _measured_flops(dtype, device, mlps[0].hidden_size, mlps[0].inner_size)
    audit_seconds = (2 * working * sum(audited)) / (PROMPT_EFFICIENCY * flops) + (
        2 * (working + embeddings) * replies / (REPLY_EFFICIENCY * flops)
    )
    width = 2 if dtype != "float32" else 4
    # A batch size that is found is one that there is room for.
    size = config.audit.batch_size
    batch = min(size if isinstance(size, int) else 1, len(audited))
    longest = max(audited, default=0) + config.audit.max_new_tokens
    memory = batch * bytes_per_chat(text, longest, width, mlps[0].inner_size)
    seconds = {} if job in _ONLY_FITS else {"audit before": audit_seconds}
    # Perplexity reads the harmless prompts; divergence has the base answer them and both models read the replies.
    # How long tasks take depends on their documents, which are not read here.
    texts = prompts.report.where(kinds=["harmless"]).limited(config.utility.seeds)
    harmless = [] if job in _ONLY_FITS or not texts else lengths(list(texts))
    scoring = 2 * (working + embeddings) * sum(harmless) / (PROMPT_EFFICIENCY * flops)
    drift = config.utility.kl_tokens * len(harmless)
    drifting = 2 * (working + embeddings) * drift * (1 / REPLY_EFFICIENCY + 2 / PROMPT_EFFICIENCY) / flops
    measuring = scoring if config.utility.perplexity else 0.0
    pairs = keep = fit_tokens = edited = disk = 0
    if job in _FITS:
        anchors = prompts.anchors()
        pairs, keep = len(anchors.pairs), len(anchors.keep)
        settings = config.edit
        edited = min(len(mlps), settings.layer_count if isinstance(settings.layers, str) else len(settings.layers))
        # Blocks that are chosen by trying are all collected once, and every window is solved and audited.
        windows = candidate_windows(edited, len(mlps)) if settings.layers == "select" else []
        collected = len(mlps) if windows else edited
        rows = settings.positions.template_tokens + settings.positions.prompt_mean + settings.positions.reply_tokens
        lows = [low for _, low in anchors.pairs]
        fit_tokens = sum(lengths([*anchors.reference_harmful, *lows, *anchors.keep]))
        inner, hidden = mlps[0].inner_size, mlps[0].hidden_size
        carried = settings.propagation != "none"
        features = collected * (4 * pairs * rows * (inner + hidden) + 8 * inner * inner)
        # Double-precision rows, their moments and the factorisation, for one matrix at a time.
        solving = 8 * (pairs * rows * (inner + hidden) + 4 * inner * inner)
        # Edited in order, the blocks take turns in memory, beside the hidden states carried from one to the next.
        held = features // collected + fit_tokens * hidden * width if carried else features
        memory = max(memory, held + solving)
        disk = features + edited * 4 * (settings.rank or hidden) * (inner + hidden)
        # A block that is edited in order runs once to be read and once more to be passed.
        reading = 2 * working * fit_tokens * (1 + carried * edited / len(mlps)) / (PROMPT_EFFICIENCY * flops)
        if own := settings.positions.reply_tokens:
            asked = lengths([*anchors.reference_harmful, *anchors.keep])
            reading += 2 * working * sum(asked) / (PROMPT_EFFICIENCY * flops)
            reading += 2 * (working + embeddings) * (own + 1) * len(asked) / (REPLY_EFFICIENCY * flops)
        solving_seconds = edited * (8 * inner**3 + 4 * pairs * rows * inner**2) / (0.25 * flops)
        seconds["edit"] = reading + solving_seconds
        if windows:
            trial = audit_seconds * len(prompts.select) / max(1, len(audited)) if audited else 0.0
            seconds["choosing layers"] = trial + len(windows) * (reading + solving_seconds + trial)
    if job in ("run", "verify"):
        seconds["audit after"] = audit_seconds
        seconds["utility"] = 2 * measuring + drifting
    elif job == "audit":
        seconds["utility"] = measuring
    weights = parameters * width
    if job == "streamed edit":
        weights = _streamed_bytes(model, mlps, width, embeddings if config.edit.positions.reply_tokens else 0)
    return Plan(
        model=config.model,
        parameters=parameters,
        dtype=dtype,
        architecture=type(model).__name__,
        hardware=hardware_line(device),
        blocks=len(mlps),
        matched=tuple(mlps),
        coverage=coverage(model, mlps),
        edited_blocks=edited,
        languages=prompts.report.languages,
        report_prompts=len(audited),
        anchor_pairs=pairs,
        keep_prompts=keep,
        report_tokens=sum(audited),
        fit_tokens=fit_tokens,
        reply_tokens=replies,
        harmful_prompts=harmful,
        detectable=_detectable(harmful, len(prompts.report.languages)) if job in ("run", "verify") else None,
        seconds=seconds,
        memory_bytes=weights + memory + (0 if device.startswith("cuda") else LIBRARIES_BYTES),
        free_memory_bytes=free_memory(device),
        disk_bytes=disk + 1000 * len(audited),
        free_disk_bytes=free_disk(out.absolute()),
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


def _measured_flops(dtype: str, device: str, hidden: int, inner: int) -> float:
    """Floating-point operations a second of a product of the model's own size, measured for about 0.2 s."""
    import torch

    rows = 512
    left = torch.ones(rows, hidden, dtype=getattr(torch, dtype), device=device)
    right = torch.ones(hidden, inner, dtype=left.dtype, device=device)

    def seconds(repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            left @ right
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / repeats

    once = max(seconds(2), 1e-6)
    return 2 * rows * hidden * inner / seconds(max(2, min(2000, round(0.2 / once))))

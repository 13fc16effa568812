"""`lingualign demo`: the whole job on the built-in small model, offline, on a CPU."""

from __future__ import annotations

from typing import Any

from lingualign.cli import options as o

#: Audited seeds of each kind; None for all of the report split.
DEMO_SEEDS_PER_KIND: int | None = None
#: Languages in which each seed is fitted on, in turns: as good as all, in half of the time (docs/method-notes.md).
DEMO_LANGUAGES_PER_SEED: int | None = 2
#: Languages the edit is fitted on; Indonesian, Swahili, Spanish and German are left to show what carries over.
DEMO_ANCHORS = ("zh", "vi", "ja", "th", "bn", "he", "ar", "ko", "it")
#: Harmless seeds whose perplexity and divergence are measured: all 60 would take two minutes more.
DEMO_UTILITY_SEEDS = 15
#: Settings of the edit that differ from the method's defaults, chosen on the select split (docs/choosing-defaults.md).
DEMO_EDIT: dict[str, Any] = {"layers": [9, 10, 11, 12, 13, 14, 15], "keep_weight": 20.0}
#: All of them as a settings file has them.
DEMO_SETTINGS: dict[str, Any] = {
    "prompts": {
        "anchor_languages": list(DEMO_ANCHORS),
        "seeds_per_kind": DEMO_SEEDS_PER_KIND,
        "languages_per_seed": DEMO_LANGUAGES_PER_SEED,
    },
    "edit": DEMO_EDIT,
    "utility": {"seeds": DEMO_UTILITY_SEEDS},
}


def demo(
    controls: o.Controls = False,
    out: o.Out = None,
    require: o.Require = None,
    show_text: o.ShowText = False,
    seeds_per_kind: o.SeedsPerKind = None,
    batch_size: o.BatchSize = None,
    precision: o.PrecisionOption = None,
    device: o.Device = None,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """See the whole job on a small built-in model: about seven minutes on two cores, no network."""
    from lingualign.cli.flow import whole_job

    settings = o.make_config(
        model="small",
        seeds_per_kind=seeds_per_kind,
        batch_size=batch_size,
        precision=precision,
        device=device,
        defaults=DEMO_SETTINGS,
    )
    whole_job(
        settings,
        out or o.default_out(settings),
        require=require,
        controls=controls,
        show_text=show_text,
        dry_run=dry_run,
        as_json=json,
        quiet=quiet,
    )

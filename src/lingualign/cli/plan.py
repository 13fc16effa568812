"""`lingualign plan`: what a run will need, before any weight is loaded."""

from __future__ import annotations

from lingualign.cli import options as o


def plan(
    model: o.OptionalModel = None,
    languages: o.Languages = None,
    anchors: o.Anchors = None,
    keep: o.Keep = None,
    prompts: o.Prompts = None,
    config: o.Config = None,
    out: o.Out = None,
    seeds_per_kind: o.SeedsPerKind = None,
    max_new_tokens: o.MaxNewTokens = None,
    batch_size: o.BatchSize = None,
    precision: o.PrecisionOption = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Show matched modules, time, memory and disk of a run; exit code 2 where the machine is too small."""
    from lingualign.cli.flow import whole_job

    settings = o.make_config(
        config,
        model=model,
        languages=languages,
        anchors=anchors,
        keep=keep,
        prompts=prompts,
        seeds_per_kind=seeds_per_kind,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        precision=precision,
        device=device,
    )
    whole_job(settings, out or o.default_out(settings), dry_run=True, as_json=json, quiet=quiet)

"""The few lines of a model card that say what an edit changed, so that an exported model explains itself."""

from __future__ import annotations

from lingualign.edit import Edit


def card_section(edit: Edit) -> str:
    """Markdown section that names the method, the languages it was fitted on and the touched tensors."""
    parts = edit.manifest.get("sum_of", [edit.manifest])
    lines = ["## Edited with lingualign", ""]
    for part in parts:
        method = " ".join(str(part[key]) for key in ("method", "family") if part.get(key)) or "unnamed method"
        citation = f" ({part['citation']})" if part.get("citation") else ""
        lines.append(f"- Method: {method}{citation}")
        if part.get("anchor_languages"):
            lines.append(f"- Refusals of {part.get('reference')} carried to: {', '.join(part['anchor_languages'])}")
        if part.get("scale") is not None:
            lines.append(f"- Strength: {part['scale']:g}")
    lines += [
        f"- Changed tensors ({len(edit.deltas)}): {', '.join(f'`{name}`' for name in sorted(edit.deltas))}",
        "",
        "Every other weight is the base model's. Refusal rates differ by language and deployment: measure yours with",
        "`lingualign audit` before use.",
        "",
    ]
    return "\n".join(lines)

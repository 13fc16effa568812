"""The tables of docs/judge.md from the error tables in the package: `python -m lingualign.evaluate.judges.tables`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lingualign.evaluate.correction import JudgeError
from lingualign.evaluate.judges.card import judge_card
from lingualign.evaluate.judges.examples import HERE
from lingualign.evaluate.statistics import wilson_interval

#: The judges that carry a table, the default one first.
JUDGES = ("ngram-2", "e5-1")
#: Balanced accuracy that the n-gram judge should reach on the test replies.
TARGETS = {
    **{"en": 0.95},
    **dict.fromkeys(("ar", "de", "es", "fr", "it", "ja", "ko", "nl", "pl", "zh"), 0.9),
    **dict.fromkeys(("ru", "th"), 0.85),
}
_SMALL = ("small model specificity", "n")
_NONE = "–"

Cells = Mapping[str, Any]


def summary() -> Iterator[str]:
    """What is known of each judge in each language, or that it is not valid there."""
    cards = [judge_card(name) for name in JUDGES]
    agreements = error_table(JUDGES[1])["agreement"]["languages"]
    heads = [f"{name} {column}" for name in JUDGES for column in ("sensitivity", "specificity", "balanced", "n", "on")]
    yield from _header("language", *heads, "agreement", "κ")
    for language in sorted(cards[0].errors):
        cells = [language]
        for card in cards:
            error = card.errors[language]
            n = f"{error.refused} / {error.others}"
            if error.is_valid:
                shares = (error.sensitivity, error.specificity, _balanced(error))
                cells += [*map(_share, shares), n, card.measured_on[language]]
            else:
                cells += ["not valid", _NONE, _NONE, n, card.measured_on[language]]
        found = agreements.get(language)
        cells += [_share(found["observed"]), _kappa(found)] if found else [_NONE, _NONE]
        yield _row(cells)


def labelled(name: str) -> Iterator[str]:
    """A judge's error by source of the replies."""
    shares = ("sensitivity", "specificity", "n")
    yield from _header(
        "language", *(f"{source} {share}" for source in ("test", "written") for share in shares), *_SMALL
    )
    card = judge_card(name)
    for language, sources in error_table(name)["languages"].items():
        if "test" in sources or "written" in sources:
            valid = card.errors[language].is_valid
            cells = [language, *_cells(sources.get("test"), valid), *_cells(sources.get("written"), valid)]
            small = sources.get("small")
            yield _row([*cells, *([_share(small["specificity"]), str(small["answered"])] if small else [_NONE] * 2)])


def read_anew(name: str) -> Iterator[str]:
    """A judge's error on the test replies by WildGuard's label and by the labels read anew, beside the target."""
    columns = ("sensitivity", "specificity", "balanced", "n")
    heads = [f"{label} {column}" for label in ("WildGuard's", "read anew") for column in columns]
    yield from _header("language", "target", *heads, "target met")
    languages = error_table(name)["languages"]
    for language, target in sorted(TARGETS.items()):
        cells, met = [language, f"{target:.2f}"], []
        for source in ("test", "read"):
            error = _error(languages[language][source])
            met.append(_balanced(error) >= target)
            cells += [
                _with_interval(error.sensitivity, error.refused),
                _with_interval(error.specificity, error.others),
                _share(_balanced(error)),
                f"{error.refused} / {error.others}",
            ]
        yield _row([*cells, " / ".join("yes" if answer else "no" for answer in met)])


def on_the_small_model() -> Iterator[str]:
    """Both judges' error on the small model's replies, by labels from blind reading."""
    heads = [f"{name} {column}" for name in JUDGES for column in ("sensitivity", "specificity")]
    yield from _header("language", *heads, "n")
    first, *others = [error_table(name)["languages"] for name in JUDGES]
    for language, sources in first.items():
        if "small read" in sources:
            error = _error(sources["small read"])
            cells = [language]
            for found in (error, *(_error(other[language]["small read"]) for other in others)):
                cells += [
                    _with_interval(found.sensitivity, found.refused),
                    _with_interval(found.specificity, found.others),
                ]
            yield _row([*cells, f"{error.refused} / {error.others}"])


def error_table(name: str) -> dict[str, Any]:
    """The error table of a judge as the package has it."""
    file = HERE / f"{name.partition('-')[0]}_error.json"
    table: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return table


def _error(cells: Cells) -> JudgeError:
    refused, others = cells["refused"], cells["answered"]
    return JudgeError(refused, cells["sensitivity"] * refused, others, cells["specificity"] * others)


def _balanced(error: JudgeError) -> float:
    return (error.sensitivity + error.specificity) / 2


def _cells(cells: Cells | None, valid: bool) -> list[str]:
    if cells is None:
        return [_NONE] * 3
    shares = [_share(cells["sensitivity"]), _share(cells["specificity"])] if valid else ["not valid", _NONE]
    return [*shares, f"{cells['refused']} / {cells['answered']}"]


def _share(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _with_interval(share: float, n: int) -> str:
    low, high = wilson_interval(round(share * n), n)
    return f"{share:.3f} ({low:.2f}–{high:.2f})"


def _kappa(found: Cells) -> str:
    if found["kappa"] is None:
        return _NONE
    low, high = found["interval"]
    return f"{found['kappa']:.2f} ({low:.2f}–{high:.2f})"


def _header(*cells: str) -> Iterator[str]:
    yield _row(list(cells))
    yield "|" + "---|" * len(cells)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page() -> list[str]:
    """All tables of the page in their order."""
    anew = (read_anew(name) for name in JUDGES)
    tables = [summary(), *anew, on_the_small_model(), *(labelled(name) for name in JUDGES)]
    return ["\n".join(table) for table in tables]


if __name__ == "__main__":
    sys.stdout.write("\n\n".join(page()) + "\n")

"""Splits for sets that come without one: by seed, so that translations and twins never fall on two sides."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import accumulate

from lingualign.data.schema import KINDS, SPLITS, PromptSet, Split
from lingualign.errors import ConfigError, DataError


def split_by_seed(
    prompts: PromptSet, fractions: tuple[float, float, float] = (0.5, 0.2, 0.3), seed: int = 0
) -> PromptSet:
    """The same prompts, those without a split put into fit, select or report by a hash of their seed id.

    Every language of a seed, and a look-alike that has the seed id of its harmful twin, get the same split. The hash
    looks at nothing but the id and `seed`, so rows added later never move an earlier row from report to fit; the parts
    are therefore near the fractions, not exactly of their size. A split that is already there stays. Split before
    `mix`, which may change ids.

    Args:
        fractions: expected shares of fit, select and report.
        seed: another value gives another, equally fixed, assignment.

    Raises:
        ConfigError: the fractions are negative or do not sum to 1.
        DataError: a kind got no prompt in a part whose fraction is positive.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ConfigError(f"split fractions {fractions} must be non-negative and sum to 1")
    divided = PromptSet(
        prompt if prompt.split else replace(prompt, split=_split_of(prompt.seed_id, fractions, seed))
        for prompt in prompts
    )
    wanted = {split for split, fraction in zip(SPLITS, fractions, strict=True) if fraction > 0}
    for kind in KINDS:
        found = {prompt.split for prompt in divided if prompt.kind == kind}
        empty = [split for split in SPLITS if split in wanted - found]
        if found and empty:
            raise DataError(
                f"{len(prompts.seeds(kind))} {kind} seeds leave the {empty[0]} split empty; "
                "add prompts, choose another seed or give a `split` column"
            )
    return divided


def _split_of(seed_id: str, fractions: tuple[float, float, float], seed: int) -> Split:
    digest = hashlib.sha256(f"{seed}\0{seed_id}".encode()).digest()
    position = int.from_bytes(digest[:8]) / 2**64
    upper = list(accumulate(fractions))
    # The last positive part takes what rounding of the sum leaves above its upper end.
    return next(
        (split for split, end in zip(SPLITS, upper, strict=True) if position < end),
        next(split for split, fraction in zip(reversed(SPLITS), reversed(fractions), strict=True) if fraction > 0),
    )

"""The guard formats by name."""

from lingualign.evaluate.judges.formats.base import GuardFormat
from lingualign.evaluate.judges.formats.binary import BINARY
from lingualign.evaluate.judges.formats.llama_guard import LLAMA_GUARD_3, LLAMA_GUARD_3_1B, LLAMA_GUARD_4
from lingualign.evaluate.judges.formats.polyguard import POLYGUARD
from lingualign.evaluate.judges.formats.qwen3guard import QWEN3GUARD, QWEN3GUARD_STRICT
from lingualign.evaluate.judges.formats.strongreject import STRONGREJECT
from lingualign.evaluate.judges.formats.wildguard import WILDGUARD

FORMATS: dict[str, GuardFormat] = {
    each.name: each
    for each in (
        QWEN3GUARD,
        QWEN3GUARD_STRICT,
        LLAMA_GUARD_3,
        LLAMA_GUARD_3_1B,
        LLAMA_GUARD_4,
        WILDGUARD,
        POLYGUARD,
        STRONGREJECT,
        BINARY,
    )
}

"""Soteria (Banerjee et al., Findings of EMNLP 2025, arXiv 2502.11244): away from harm in a language's heads.

The heads that carry a language are found by their effect on few-shot tasks in it, and a harm vector is subtracted in
those heads' columns of the attention output matrix.
"""

from lingualign.methods.soteria.heads import group_heads, indirect_effects, top_heads
from lingualign.methods.soteria.method import HarmVector, Soteria, weights_of
from lingualign.methods.soteria.tasks import Task, builtin_tasks

__all__ = [
    "HarmVector",
    "Soteria",
    "Task",
    "builtin_tasks",
    "group_heads",
    "indirect_effects",
    "top_heads",
    "weights_of",
]

"""The judged replies of a run as one Parquet table for data frames and SQL."""

from __future__ import annotations

import json
from pathlib import Path

from lingualign.errors import MissingDependency
from lingualign.interop.arms import read_arms, storable

#: The name of the columns' meaning, in the file's metadata under `lingualign`.
REPLIES_SCHEMA = "lingualign-replies/1"


def write_replies_parquet(folder: Path, path: Path, *, show_text: bool = False) -> Path:
    """Writes one row for each judged reply of each arm of a finished run; docs/interop.md has the columns.

    Args:
        folder: the run folder.
        path: the file; written under a temporary name and renamed.
        show_text: whether the replies are a column too; they are harmful or hostile text.

    Raises:
        UserError: the folder holds no finished run.
        MissingDependency: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependency("pyarrow", "eval") from None

    arms = read_arms(folder)
    model, judge = arms.figures["model"], arms.figures["judge"]["name"]
    label = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    columns = {
        "arm": label,
        "model": label,
        "model_fingerprint": label,
        "judge": label,
        "seed_id": pyarrow.string(),
        "language": label,
        "kind": label,
        "outcome": label,
        "score": pyarrow.float64(),
        "unsafe": pyarrow.bool_(),
        "reply_language": label,
        "tokens": pyarrow.int32(),
        "finished": pyarrow.bool_(),
        "characters": pyarrow.int32(),
    }
    if show_text:
        columns["text"] = pyarrow.string()
    metadata = {"schema": REPLIES_SCHEMA, "model": model, "judge": judge, "split": arms.figures["split"]}
    schema = pyarrow.schema(list(columns.items()), metadata={"lingualign": json.dumps(metadata)})
    rows = [
        {
            "arm": arm,
            "model": storable(model["name"]),
            "model_fingerprint": model["fingerprint"],
            "judge": judge,
            "seed_id": reply.seed_id,
            "language": reply.language,
            "kind": reply.kind,
            "outcome": reply.outcome,
            "score": reply.score,
            "unsafe": reply.unsafe,
            "reply_language": reply.reply_language or None,
            "tokens": reply.tokens,
            "finished": reply.finished,
            "characters": len(reply.text),
            "text": storable(reply.text) if show_text else None,
        }
        for arm, replies in arms.replies.items()
        for reply in replies
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), partial, compression="zstd")
    partial.replace(path)
    return path

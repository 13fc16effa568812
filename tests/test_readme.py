"""README.md keeps its promises: its example runs, its commands and links exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

REPOSITORY = Path(__file__).resolve().parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert 'load_model("small")' in example
    monkeypatch.chdir(tmp_path)
    # The tiny model stands in for the small one, and a few seeds for all.
    example = example.replace('load_model("small")', f"load_model({str(tiny_model_folder)!r})")
    example = example.replace('.where(splits=["fit"])', '.where(splits=["fit"]).limited(4)')
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "edit.safetensors").is_file()
    assert (tmp_path / "edited-model" / "model.safetensors").is_file()
    assert (tmp_path / "edited-adapter" / "adapter_model.safetensors").is_file()


def test_the_table_of_commands_is_complete() -> None:
    from lingualign.cli.main import app

    named = set(re.findall(r"^\| `(\w+)[^`]*` \|", README, re.MULTILINE))
    assert named == set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_inside_the_repository_lead_somewhere(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert [target for target in targets if not (REPOSITORY / target).exists()] == []

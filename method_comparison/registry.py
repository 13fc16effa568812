"""The methods and models that are compared: one TOML file each, in `methods/` and `models/`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lingualign.config import RunConfig, build_config, read_toml
from lingualign.errors import ConfigError, UserError
from lingualign.models.load import SMALL_MODEL
from lingualign.organism.build import merged_name, small_model_folder
from method_comparison.imports import made
from method_comparison.packaged import PackagedModel
from method_comparison.treatment import Method

FOLDER = Path(__file__).parent
METHODS = FOLDER / "methods"
MODELS = FOLDER / "models"

_Spec = TypeVar("_Spec", bound="BaseModel")


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MethodFile(_File):
    """A file in `methods/`.

    Attributes:
        description: one sentence for the page.
        citation: where the method was published.
        fit: import path of a `Method`, `MODULE:CLASS`.
        parameters: keyword arguments of that class.
        control: whether it is there to be compared with, rather than to be used.
        seeded: whether its result depends on the seed; one that does not is run once.
        base: method whose edit this one is made from.
    """

    description: str = Field(min_length=1)
    citation: str = ""
    fit: str = Field(pattern=r"^[\w.]+:\w+$")
    parameters: dict[str, Any] = {}
    control: bool = False
    seeded: bool = True
    base: str | None = None


class ModelFile(_File):
    """A file in `models/`.

    Attributes:
        description: one sentence for the page.
        run: the settings of a run as `lingualign run --config` reads them.
        adapter: folder of another adapter of the small model, seen from the file's.
        gguf: PACKAGE/FILE, where an installed Python package carries the model's weights. The name under `run` then
            says what they are, and the hub is not asked.
    """

    description: str = Field(min_length=1)
    run: dict[str, Any]
    adapter: str | None = None
    gguf: str | None = Field(default=None, pattern=r"^\w+/[\w.-]+$")


@dataclass(frozen=True)
class RegisteredMethod:
    """A method by its name, ready to be fitted."""

    name: str
    file: MethodFile
    method: Method

    def seeds(self, seeds: Iterable[int]) -> list[int]:
        """Those of the given seeds that make a difference."""
        return list(seeds) if self.file.seeded else [0]


@dataclass(frozen=True)
class RegisteredModel:
    """A model by its name, with the settings of its runs and, if they come from elsewhere, the adapter in place of the
    small model's or the package with the weights."""

    name: str
    file: ModelFile
    config: RunConfig
    adapter: Path | None = None
    packaged: PackagedModel | None = None

    @property
    def source(self) -> str:
        """What the model is, wherever its files are: the hub id, `small`, a local checkpoint's folder name, or a name
        that carries the hash of the small model's other adapter or of the package's weights.

        Raises:
            UserError: there is no such adapter or package.
        """
        if self.adapter is not None:
            return merged_name(self.adapter)
        if self.packaged is not None:
            return self.packaged.name
        name = self.config.model
        return Path(name).name if Path(name).is_dir() else name

    def checkpoint(self) -> str:
        """What `load_model` takes. The small model with another adapter is built on first use, in about a minute, a
        package's weights in seconds.

        Raises:
            UserError: there is no such adapter or package, or the base weights are missing or damaged.
        """
        if self.adapter is not None:
            return str(small_model_folder(self.adapter))
        return self.config.model if self.packaged is None else str(self.packaged.folder())


def names(folder: Path) -> list[str]:
    """What a folder registers."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def load_method(name: str, folder: Path = METHODS) -> RegisteredMethod:
    """Reads a method's file and makes its object.

    Raises:
        ConfigError: there is no such file, or something in it is wrong.
    """
    path = _path(name, folder, "method")
    file = _checked(MethodFile, path)
    try:
        method = made(file.fit, file.parameters)
    except UserError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(method, Method):
        raise ConfigError(f"{path}: {file.fit} is no Method; see method_comparison/treatment.py")
    return RegisteredMethod(name, file, method)


def load_methods(wanted: Iterable[str] | None = None, folder: Path = METHODS) -> dict[str, RegisteredMethod]:
    """Methods by name, each after the one that it is made from; by default all.

    Raises:
        ConfigError: as `load_method`, or two are made from each other.
    """
    found: dict[str, RegisteredMethod] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ConfigError(f"methods {', '.join(above)} are made from each other; correct `base` in one of them")
        if name not in found:
            loaded = load_method(name, folder)
            if loaded.file.base:
                add(loaded.file.base, (*above, name))
            found[name] = loaded

    for name in wanted if wanted is not None else names(folder):
        add(name, ())
    return found


def load_model_file(name: str, folder: Path = MODELS) -> RegisteredModel:
    """Reads a model's file; `name` may be a path to one outside the folder.

    Raises:
        ConfigError: there is no such file, or something in it is wrong.
    """
    given = Path(name)
    path = given if given.suffix == ".toml" else _path(name, folder, "model")
    file = _checked(ModelFile, path)
    config = build_config(file.run, str(path))
    if file.adapter and file.gguf:
        raise ConfigError(f"{path}: adapter and gguf: a model has one or the other; remove one")
    if file.gguf:
        package, _, name = file.gguf.partition("/")
        return RegisteredModel(path.stem, file, config, packaged=PackagedModel(package, name))
    if file.adapter is None:
        return RegisteredModel(path.stem, file, config)
    if config.model != SMALL_MODEL:
        raise ConfigError(f"{path}: adapter: it is one of the small model; set model to {SMALL_MODEL} under [run]")
    return RegisteredModel(path.stem, file, config, (path.parent / file.adapter).resolve())


def _path(name: str, folder: Path, what: str) -> Path:
    known = names(folder)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        hint = f"did you mean {near[0]}?" if near else f"put {name}.toml there"
        raise ConfigError(f"there is no {what} {name} in {folder}; {hint}")
    return folder / f"{name}.toml"


def _checked(kind: type[_Spec], path: Path) -> _Spec:
    try:
        return kind.model_validate(read_toml(path))
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        known = ", ".join(kind.model_fields)
        raise ConfigError(f"{path}: {name}: {problem['msg']} (a file has {known})") from None

"""Loads profiles and applies overrides. Each error is one line with the file, the key and the allowed values."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError

ModelT = TypeVar("ModelT", bound=BaseModel)


def profile_names() -> list[str]:
    """Names of the profiles in the package."""
    folder = resources.files("uniad_ray.config") / "profiles"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(
    profile: str, overrides: Sequence[str] = (), *, from_files: Mapping[str, Sequence[str]] | None = None
) -> FitConfig:
    """Loads a profile and applies overrides; the configuration knows its origin.

    Args:
        profile: Name of a profile in the package, or path of a YAML file.
        overrides: Assignments such as `calibration.holdout=0.3`; the value is read as YAML.
        from_files: Further assignments, by the file that they come from, for messages.

    Raises:
        ConfigError: The profile or file does not exist, is not valid YAML, or has an unknown key or a wrong value.
    """
    source, text = _profile_text(profile)
    document = parse_yaml(text, where=source)
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: expected keys and values at the top level")
    files = from_files or {}
    given = [*overrides, *(assignment for found in files.values() for assignment in found)]
    assignments = _with_size(document, given, source)
    apply_overrides(document, assignments)
    _forget_replaced_experts(document, assignments)
    origin = " with ".join([source, *(["--set"] if overrides else []), *files])
    return validate(FitConfig, document, where=origin).with_origin(origin)


def parse_yaml(text: str, *, where: str) -> Any:
    """Parses YAML.

    Args:
        text: YAML.
        where: File that the text came from.

    Raises:
        ConfigError: The text is not valid YAML.
    """
    with _one_line(where):
        return yaml.safe_load(text)


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> None:
    """Applies assignments such as `calibration.holdout=0.3` to a document; values are read as YAML.

    Raises:
        ConfigError: An assignment has no `key=value` form, its value is not valid YAML, or its parent has no keys.
    """
    for assignment in overrides:
        _assign(document, assignment)


def read_words(path: str, *, example: str) -> dict[str, str]:
    """Reads a YAML mapping of text to text. Keys and values such as `no` or `1` stay text.

    Args:
        path: The file.
        example: Example line of such a file, for the message.

    Raises:
        ConfigError: The file cannot be read, has a key twice, or is not a mapping of text to text.
    """
    text = _file_text(Path(path).expanduser())
    with _one_line(path):
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or not all(
        isinstance(node, yaml.ScalarNode) for pair in root.value for node in pair
    ):
        raise ConfigError(f"{path}: write one line for each name, such as `{example}`")
    pairs = [(str(key.value), str(value.value)) for key, value in root.value]
    words = dict(pairs)
    if len(words) < len(pairs):
        twice = sorted({key for key, _ in pairs if [name for name, _ in pairs].count(key) > 1})
        raise ConfigError(f"{path}: names {', '.join(twice)} twice; keep one line for each name")
    return words


def validate(model: type[ModelT], document: Any, *, where: str, prefix: str = "") -> ModelT:
    """Validates a document and turns pydantic's errors into one line.

    Args:
        model: Model to build.
        document: Parsed YAML or JSON.
        where: File or option the document came from.
        prefix: Key of the document within that file, such as `experts.patch.config`.

    Raises:
        ConfigError: The document does not fit the model.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        lines = [_explain(model, dict(entry), prefix) for entry in error.errors()]
        raise ConfigError(f"{where}: {'; '.join(lines)}") from error


@contextmanager
def _one_line(where: str) -> Iterator[None]:
    try:
        yield
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from error


def import_class(path: str, *, where: str) -> type[object]:
    """Imports a class named `package.module:Class`.

    Raises:
        ConfigError: The module or class does not exist.
    """
    module_name, _, class_name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: class {path!r} cannot be imported: {error}") from error
    if not isinstance(found, type):
        raise ConfigError(f"{where}: {path!r} is not a class")
    return found


def _profile_text(profile: str) -> tuple[str, str]:
    if profile in profile_names():
        return f"profile {profile}", (resources.files("uniad_ray.config") / "profiles" / f"{profile}.yaml").read_text(
            "utf-8"
        )
    path = Path(profile).expanduser()
    if path.is_file():
        return str(path), _file_text(path)
    raise ConfigError(f"no profile {profile!r}: use one of {', '.join(profile_names())}, or the path of a YAML file")


def _file_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def _assign(document: dict[str, Any], assignment: str) -> None:
    key, separator, text = assignment.partition("=")
    if not separator or not all(key.split(".")):
        raise ConfigError(f"--set {assignment}: write it as key.of.option=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {assignment}: the value is not valid YAML") from error
    _put(document, key, value, f"--set {assignment}")


def _put(document: dict[str, Any], key: str, value: Any, where: str) -> None:
    *parents, last = key.split(".")
    target = document
    for depth, name in enumerate(parents):
        following = target.setdefault(name, {})
        if not isinstance(following, dict):
            raise ConfigError(f"{where}: {'.'.join(parents[: depth + 1])} has no keys below it")
        target = following
    target[last] = copy.deepcopy(value)


def _with_size(document: dict[str, Any], assignments: Sequence[str], where: str) -> list[str]:
    """Applies the chosen one of the `sizes` of a profile, and returns the assignments to apply to the result.

    A size is a set of options, by key. Its word `size` comes from the profile or from an assignment. Neither is part of
    the configuration: the options are.
    """
    sizes = document.pop("sizes", None)
    if not isinstance(sizes, dict):
        return list(assignments)
    words = [text.strip() for key, _, text in (one.partition("=") for one in assignments) if key == "size"]
    chosen = [str(document.pop("size", None)), *words][-1]
    if chosen not in sizes:
        raise ConfigError(f"{where}: size is {chosen!r}; there are {', '.join(map(str, sizes))}")
    for key, value in (sizes[chosen] or {}).items():
        _put(document, str(key), value, f"{where}: sizes.{chosen}")
    return [one for one in assignments if one.partition("=")[0] != "size"]


def _forget_replaced_experts(document: dict[str, Any], assignments: Sequence[str]) -> None:
    """Removes the experts of the profile from its `large_images` if an assignment replaces all experts.

    Without any that is left, `large_images` becomes null. What is assigned to it stays.
    """
    keys = [one.partition("=")[0] for one in assignments]
    large, experts = document.get("large_images"), document.get("experts")
    if "experts" not in keys or any(key.split(".")[0] == "large_images" for key in keys):
        return
    if isinstance(large, dict) and isinstance(large.get("experts"), list) and isinstance(experts, dict):
        left = [name for name in large["experts"] if name in experts]
        document["large_images"] = {**large, "experts": left} if left else None


def _explain(model: type[BaseModel], error: dict[str, Any], prefix: str) -> str:
    location, parent = _walk(model, [str(part) for part in error["loc"]])
    key = ".".join([*([prefix] if prefix else []), *location]) or "the document"
    if error["type"] == "extra_forbidden":
        allowed = sorted(field.alias or name for name, field in parent.model_fields.items()) if parent else []
        return f"{key}: unknown key" + (f"; allowed: {', '.join(allowed)}" if allowed else "")
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] == "union_tag_not_found":
        return f"{key}.kind: missing"
    message = error["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    # Do not repeat a whole block: it adds nothing, and it may hold a secret such as a key.
    silent = error["type"] == "value_error" or isinstance(error.get("input"), dict)
    got = "" if silent else f" (got {error.get('input')!r:.80})"
    return f"{key}: {message}{got}"


def _walk(model: type[BaseModel], location: Sequence[str]) -> tuple[list[str], type[BaseModel] | None]:
    """Follows the location of an error through nested models, dictionaries of models and choices by `kind`.

    Returns:
        The location as written in the file, and the model that owns its last key, if any.
    """
    written: list[str] = []
    choices, parent = [model], None
    for name in location:
        chosen = [choice for choice in choices if _is_kind(choice, name)] if len(choices) > 1 else []
        if chosen:
            # pydantic adds the chosen kind to the location; the file has no such key.
            choices = chosen
            continue
        parent = choices[0] if len(choices) == 1 else None
        written.append(name)
        fields = {field.alias or key: field for key, field in parent.model_fields.items()} if parent else {}
        if name in fields:
            choices = _models_in(fields[name].annotation)
    return written, parent


def _is_kind(model: type[BaseModel], kind: str) -> bool:
    field = model.model_fields.get("kind")
    return field is not None and kind in get_args(field.annotation)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation such as `dict[str, Model]` or `One | Other`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]

"""Build the extractors and experts of a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar, cast

from uniad_ray.config.base import StrictModel
from uniad_ray.config.class_lists import all_classes
from uniad_ray.config.loading import import_class, validate
from uniad_ray.config.model import ClassConfig, FitConfig
from uniad_ray.errors import ConfigError
from uniad_ray.experts.base import Expert, ExpertClass
from uniad_ray.perception.base import Extractor, ExtractorClass, State
from uniad_ray.perception.pipeline import PerceptionPipeline
from uniad_ray.perception.region import Region


def build_experts(
    config: FitConfig,
    *,
    states: Mapping[str, State] | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Expert]:
    """Build the experts of the chosen set, unfitted or with learned state.

    Args:
        config: The fit configuration.
        states: Learned state by expert; None builds unfitted experts.
        only: Experts to build; None builds all of the set.

    Raises:
        ConfigError: A class cannot be imported, or its options are invalid.
    """
    experts: dict[str, Expert] = {}
    for name in config.chosen_experts:
        if only is not None and name not in only:
            continue
        component = config.experts[name]
        shared = {"map_size": config.map_size, "seed": config.seed}
        found, options = _class_and_options(component, f"experts.{name}", config.origin, shared, _EXPERT)
        experts[name] = found(name, options) if states is None else found.from_state(name, options, states[name])
    return experts


def build_pipeline(
    config: FitConfig, fields: Iterable[tuple[str, str]], *, device: str, check_unused: bool = True
) -> PerceptionPipeline:
    """Load only the networks that some fields need, directly or through other fields.

    Args:
        config: The fit configuration.
        fields: Pairs of a needed field and the component that needs it, for messages; see `needs_of`.
        device: Torch device.
        check_unused: Also check the options of unused extractors, which takes seconds.

    Raises:
        ConfigError: A class cannot be imported, its options are invalid, or no extractor provides a needed field.
        WeightsError: Weights are missing or have another digest.
    """
    prepared: dict[str, tuple[ExtractorClass, StrictModel]] = {}
    provider_of: dict[str, str] = {}

    def prepare(name: str) -> None:
        if name not in prepared:
            component = config.extractors[name]
            shared = {"seed": config.seed}
            component = with_classes(component, config)
            found, options = _class_and_options(component, f"extractors.{name}", config.origin, shared, _EXTRACTOR)
            prepared[name] = (found, options)
            provider_of.update(dict.fromkeys(found.fields_of(name, options), name))

    for name in config.extractors if check_unused else ():
        prepare(name)
    pending = list(fields)
    chosen: dict[str, Extractor] = {}
    while pending:
        field, asker = pending.pop()
        # Try the extractor whose name begins the field first: usually it is the provider.
        for name in sorted(config.extractors, key=lambda name: not field.startswith(f"{name}/")):
            if field not in provider_of:
                prepare(name)
        if field not in provider_of:
            raise ConfigError(
                f"{config.origin}: {asker} needs {field!r}, which no extractor provides; "
                f"there are {', '.join(sorted(provider_of))}"
            )
        provider = provider_of[field]
        if provider not in chosen:
            found, options = prepared[provider]
            chosen[provider] = found(provider, options, device)
            pending += [(need, f"extractor {provider}") for need in sorted(chosen[provider].needs)]
    # Without an image size, the fields are only listed.
    region = None if config.image_size is None else Region.of(config)
    return PerceptionPipeline(
        [chosen[name] for name in config.extractors if name in chosen], region, config.value_range
    )


def with_classes(component: ClassConfig, config: FitConfig) -> ClassConfig:
    """Return an extractor with the classes of the configuration, if it has the option and sets none.

    Raises:
        ConfigError: The class of the extractor cannot be imported.
    """
    if not config.classes or component.config.get("classes"):
        return component
    found = import_class(component.class_path, where=config.origin)
    if "classes" not in getattr(getattr(found, "config_model", None), "model_fields", {}):
        return component
    options = {**component.config, "classes": all_classes(config.classes)}
    return component.model_copy(update={"config": options})


def needs_of(experts: Mapping[str, Expert]) -> list[tuple[str, str]]:
    """Return pairs of a needed field and the expert that needs it, for messages."""
    return [(field, f"expert {expert.name}") for expert in experts.values() for field in sorted(expert.needs)]


ClassT = TypeVar("ClassT", ExpertClass, ExtractorClass)


class _Kind(NamedTuple, Generic[ClassT]):
    """Requirements of a class, checked on loading and not in the middle of a fit."""

    word: str
    contract: type[object]
    instance: type[object]
    arguments: tuple[str, ...]


_EXPERT: _Kind[ExpertClass] = _Kind("expert", ExpertClass, Expert, ("name", "config"))
_EXTRACTOR: _Kind[ExtractorClass] = _Kind("extractor", ExtractorClass, Extractor, ("name", "config", "device"))


def _class_and_options(
    component: ClassConfig, key: str, where: str, shared: Mapping[str, Any], kind: _Kind[ClassT]
) -> tuple[ClassT, StrictModel]:
    """Import the class of a component and validate its options, including the shared ones."""
    found = _checked(import_class(component.class_path, where=f"{where}: {key}.class"), kind, f"{where}: {key}.class")
    options = dict(component.config)
    for name, value in shared.items():
        if name in found.config_model.model_fields:
            if name == "map_size" and name in options:
                # Smoothing is in map pixels, so larger maps for all would change the scores of the other experts.
                continue
            if options.get(name, value) != value:
                raise ConfigError(f"{where}: {key}.config.{name}: set {name} at the top level, for all components")
            options[name] = value
    return found, validate(found.config_model, options, where=where, prefix=f"{key}.config")


def _checked(found: type[object], kind: _Kind[ClassT], where: str) -> ClassT:
    """Check that a class has all members of its protocols.

    Raises:
        ConfigError: A member is missing.
    """
    wanted = [name for protocol in (kind.contract, kind.instance) for name in vars(protocol) if name[0] != "_"]
    missing = [name for name in wanted if not hasattr(found, name)]
    model = getattr(found, "config_model", StrictModel)
    if not (isinstance(model, type) and issubclass(model, StrictModel)):
        missing.append("a config_model that is a StrictModel")
    try:
        inspect.signature(found).bind(*kind.arguments)
    except (TypeError, ValueError):
        missing.append(f"a constructor that takes {', '.join(kind.arguments)}")
    if missing:
        raise ConfigError(
            f"{where}: {found.__module__}:{found.__qualname__} is no {kind.word}; it lacks {', '.join(missing)} (see "
            f"{kind.contract.__module__}.{kind.contract.__name__})"
        )
    return cast(ClassT, found)

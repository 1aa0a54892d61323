"""Builds the perceivers and experts that a configuration names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from uniad_ray.config.loading import import_class, validate
from uniad_ray.config.model import ComponentConfig, FitConfig
from uniad_ray.errors import ConfigError
from uniad_ray.experts.base import Expert
from uniad_ray.perception.base import State
from uniad_ray.perception.pipeline import PerceptionPipeline


def build_experts(
    config: FitConfig,
    *,
    states: Mapping[str, State] | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Expert]:
    """Builds the experts of the chosen set, fresh or with what they learned.

    Args:
        config: The fit configuration.
        states: Learned state by expert; None builds unfitted experts.
        only: Experts to build; None builds all of the set.

    Raises:
        ConfigError: A class cannot be imported, or its options are wrong.
    """
    experts: dict[str, Expert] = {}
    for name in config.chosen_experts:
        if only is not None and name not in only:
            continue
        component = config.experts[name]
        found, options = _class_and_options(
            component, f"experts.{name}", config.origin, {"map_size": config.map_size, "seed": config.seed}
        )
        experts[name] = found(name, options) if states is None else found.from_state(name, options, states[name])
    return experts


def build_pipeline(
    config: FitConfig, fields: Iterable[tuple[str, str]], *, device: str, check_unused: bool = True
) -> PerceptionPipeline:
    """Loads the networks behind some fields, directly or through another, and no other.

    Args:
        config: The fit configuration.
        fields: Each field that is needed, and who needs it, for messages; see `needs_of`.
        device: Torch device.
        check_unused: Whether the options of perceivers that nobody needs are checked as well, which takes seconds.

    Raises:
        ConfigError: A class cannot be imported, its options are wrong, or nothing provides a field that is needed.
        WeightsError: Weights cannot be found or have another digest.
    """
    prepared: dict[str, tuple[type[Any], Any]] = {}
    provider_of: dict[str, str] = {}

    def prepare(name: str) -> None:
        if name not in prepared:
            component = config.perceivers[name]
            found, options = _class_and_options(component, f"perceivers.{name}", config.origin, {"seed": config.seed})
            prepared[name] = (found, options)
            provider_of.update(dict.fromkeys(found.fields_of(name, options), name))

    for name in config.perceivers if check_unused else ():
        prepare(name)
    pending = list(fields)
    chosen: dict[str, Any] = {}
    while pending:
        field, asker = pending.pop()
        # Most fields begin with the name of their perceiver, so that the others need not be looked at.
        for name in sorted(config.perceivers, key=lambda name: not field.startswith(f"{name}/")):
            if field not in provider_of:
                prepare(name)
        if field not in provider_of:
            raise ConfigError(
                f"{config.origin}: {asker} needs {field!r}, which no perceiver provides; "
                f"there are {', '.join(sorted(provider_of))}"
            )
        provider = provider_of[field]
        if provider not in chosen:
            found, options = prepared[provider]
            chosen[provider] = found(provider, options, device)
            pending += [(need, f"perceiver {provider}") for need in sorted(chosen[provider].needs)]
    return PerceptionPipeline([chosen[name] for name in config.perceivers if name in chosen])


def needs_of(experts: Mapping[str, Expert]) -> list[tuple[str, str]]:
    """Each field that some experts need, with the expert's name for messages."""
    return [(field, f"expert {expert.name}") for expert in experts.values() for field in sorted(expert.needs)]


def _class_and_options(
    component: ComponentConfig, key: str, where: str, shared: Mapping[str, Any]
) -> tuple[type[Any], Any]:
    """Imports a component's class and validates its options, with those that are set once for all."""
    found = import_class(component.class_path, where=f"{where}: {key}.class")
    options = dict(component.config)
    for name, value in shared.items():
        if name in found.config_model.model_fields:
            if options.get(name, value) != value:
                raise ConfigError(f"{where}: {key}.config.{name}: set {name} at the top level, where it holds for all")
            options[name] = value
    return found, validate(found.config_model, options, where=where, prefix=f"{key}.config")

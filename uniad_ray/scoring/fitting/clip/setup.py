"""Find the CLIP namer of a configuration, its classes, and the padding of its crops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from uniad_ray.config.loading import import_class, validate
from uniad_ray.config.model import FitConfig
from uniad_ray.errors import ConfigError
from uniad_ray.perception.objects.clip_features import ClipObjectFeatures, ClipObjectFeaturesConfig
from uniad_ray.perception.objects.clip_namer import ClipNamer, ClipNamerConfig
from uniad_ray.scoring.factory import with_classes

ModelT = TypeVar("ModelT", ClipNamerConfig, ClipObjectFeaturesConfig)


@dataclass(frozen=True)
class ClipSetup:
    """A CLIP namer with its options.

    Attributes:
        name: Name of the namer among the extractors.
        namer: Its options.
        padding: Margin of its crops, as a fraction of the longer side of the box of an object.
    """

    name: str
    namer: ClipNamerConfig
    padding: float

    @property
    def cropped(self) -> str:
        """Field with the segments to crop for tuning."""
        return self.namer.tuning.labels or self.namer.segments


def find_clip(config: FitConfig, *, namer: str | None = None) -> ClipSetup:
    """Find the namer, check its options, and check that its vectors come from the same CLIP.

    Args:
        config: The fit configuration.
        namer: Name of the namer; default the only `ClipNamer` with classes.

    Raises:
        ConfigError: The namer is missing or ambiguous, has fewer than two classes, or an option is invalid.
    """
    namers = {
        name: _options(config, name, ClipNamerConfig)
        for name in config.extractors
        if issubclass(_class(config, name), ClipNamer)
    }
    if not namers:
        raise ConfigError(
            f"{config.origin}: no extractor names objects by CLIP; add a "
            "uniad_ray.perception.objects.clip_namer:ClipNamer"
        )
    with_classes = [name for name in sorted(namers) if namers[name].classes]
    if namer is None and len(with_classes) > 1:
        raise ConfigError(
            f"{config.origin}: {' and '.join(with_classes)} name objects by CLIP; choose one with --namer"
        )
    chosen = namer or (with_classes or sorted(namers))[0]
    if chosen not in namers:
        raise ConfigError(
            f"{config.origin}: no namer {chosen!r} that works by CLIP; there are {', '.join(sorted(namers))}"
        )
    options = namers[chosen]
    if not options.classes:
        raise ConfigError(
            f"{config.origin}: {chosen} has no classes; list them in extractors.{chosen}.config.classes, or set "
            "classes to a list or to the name of one, such as mvtec-loco"
        )
    if len(options.classes) < 2:
        raise ConfigError(
            f"{config.origin}: extractors.{chosen}.config.classes has only {options.classes[0]!r}; tuning needs at "
            "least two classes"
        )
    return ClipSetup(chosen, options, _padding(config, options, chosen))


def _padding(config: FitConfig, options: ClipNamerConfig, namer: str) -> float:
    """Return the padding of the vectors, and check that they have the same weights."""
    for name in config.extractors:
        if issubclass(_class(config, name), ClipObjectFeatures):
            found = _options(config, name, ClipObjectFeaturesConfig)
            if options.vectors in ClipObjectFeatures.fields_of(name, found):
                if found.weights != options.weights:
                    raise ConfigError(
                        f"{config.origin}: {namer} has the weights {options.weights.uri}, but its vectors have "
                        f"{found.weights.uri}; set the same for both"
                    )
                return found.padding
    raise ConfigError(f"{config.origin}: {namer} needs vectors of a ClipObjectFeatures, not {options.vectors}")


def _class(config: FitConfig, name: str) -> type:
    return import_class(config.extractors[name].class_path, where=f"{config.origin}: extractors.{name}.class")


def _options(config: FitConfig, name: str, model: type[ModelT]) -> ModelT:
    component = with_classes(config.extractors[name], config)
    return validate(model, component.config, where=config.origin, prefix=f"extractors.{name}.config")

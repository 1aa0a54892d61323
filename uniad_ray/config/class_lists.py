"""Named lists of the classes of objects in an image, such as `mvtec-loco/breakfast_box` (TMUAD, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated

import yaml
from pydantic import BeforeValidator

from uniad_ray.errors import ConfigError


@cache
def class_lists() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    """The lists in the package by data set and category."""
    text = (resources.files("uniad_ray.config") / "class_lists.yaml").read_text("utf-8")
    return {
        data_set: {category: tuple(classes) for category, classes in lists.items()}
        for data_set, lists in yaml.safe_load(text).items()
    }


def check_list_name(name: str) -> None:
    """Rejects an unknown name of a list.

    Raises:
        ValueError: There is no such data set, or it has no list of this name.
    """
    data_set, separator, category = name.partition("/")
    lists = class_lists().get(data_set)
    if lists is None:
        raise ValueError(f"there is no list {name!r}; list the classes, or use one of {', '.join(class_lists())}")
    if separator and category not in lists:
        raise ValueError(f"{data_set} has no list {category!r}; it has {', '.join(lists)}")


def _list_or_name(classes: object) -> object:
    if isinstance(classes, str):
        check_list_name(classes)
    elif not isinstance(classes, list | tuple) or not all(isinstance(name, str) for name in classes):
        raise ValueError("write a list of words, such as [bolt, nut], or the name of a list")
    return classes


Classes = Annotated[tuple[str, ...] | str, BeforeValidator(_list_or_name)]
"""Classes of objects, or the name of a list: `DATA_SET/CATEGORY`, or `DATA_SET` for the own list of each category."""


def classes_of_category(classes: Classes, category: str) -> tuple[str, ...]:
    """The classes of a category of an archive. The only list of a data set is that of any category.

    Raises:
        ConfigError: The data set has no list for this category.
    """
    if not isinstance(classes, str):
        return classes
    data_set, _, chosen = classes.partition("/")
    lists = class_lists()[data_set]
    found = next(iter(lists.values())) if len(lists) == 1 else lists.get(chosen or category)
    if found is None:
        raise ConfigError(
            f"classes is {data_set}, which has no list for the category {category!r} but for {', '.join(lists)}; "
            f"choose one of them, such as classes={data_set}/{next(iter(lists))}, or list the classes"
        )
    return found


def all_classes(classes: Classes) -> tuple[str, ...]:
    """The classes of all categories, each once."""
    if not isinstance(classes, str):
        return classes
    data_set, _, chosen = classes.partition("/")
    lists = class_lists()[data_set]
    return tuple(dict.fromkeys(name for key, names in lists.items() if chosen in ("", key) for name in names))

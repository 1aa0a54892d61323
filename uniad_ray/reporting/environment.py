"""The Jinja2 environment of the report templates."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from uniad_ray.metrics.wording import count
from uniad_ray.reporting import wording


def make_environment(*, autoescape: bool) -> Environment:
    """Creates a Jinja2 environment with the templates of this package, and `wording` as filters and globals.

    Args:
        autoescape: Whether to escape text as HTML.
    """
    environment = Environment(
        loader=PackageLoader("uniad_ray.reporting"),
        autoescape=autoescape,  # noqa: S701 - Markdown is escaped by a filter of its own
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        visible=wording.visible,
        count=count,
        percent=wording.percent,
        metric_value=wording.metric_value,
        interval=wording.interval,
        score=wording.score,
        seconds=wording.seconds,
        category_name=wording.category_name,
        group_name=wording.group_name,
    )
    environment.globals.update(
        share=wording.share,
        section_titles=wording.SECTION_TITLES,
        outcomes=wording.OUTCOMES,
        fusion_rules=wording.FUSION_RULES,
        missing=wording.MISSING,
    )
    return environment

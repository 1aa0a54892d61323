"""`uniad-ray serve-key`: create and revoke access keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from uniad_ray.cli.options import print_report, reporting

if TYPE_CHECKING:
    from uniad_ray.serving.auth.key_file import MadeKey, RevokedKey


@click.command()
@click.argument("name")
@click.option("--keys", required=True, metavar="FILE", help="YAML file of access keys; created if missing.")
@click.option(
    "--category", "categories", multiple=True, help="Limit the key to this category; may be repeated.  [default: all]"
)
@click.option(
    "--right",
    "rights",
    multiple=True,
    type=click.Choice(["score", "runs", "review"]),
    help="Operation that the key allows; may be repeated.  [default: score]",
)
@click.option(
    "--images-a-minute", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True, help="Rate limit."
)
@click.option("--revoke", is_flag=True, help="Revoke the key called NAME.")
@reporting
def serve_key(
    name: str,
    keys: str,
    categories: tuple[str, ...],
    rights: tuple[Any, ...],
    images_a_minute: float,
    revoke: bool,
    as_json: bool,
) -> None:
    """Create an access key called NAME. The key is printed once; only its hash is stored.

    A running endpoint reloads changed keys.
    """
    from uniad_ray.serving.auth.key_file import add_key, revoke_key

    if revoke:
        print_report(revoke_key(keys, name), as_json, revoked_as_text)
        return
    made = add_key(
        keys,
        name,
        categories=categories or None,
        rights=frozenset(rights or ("score",)),
        images_a_minute=images_a_minute,
    )
    print_report(made, as_json, made_as_text)


def made_as_text(report: MadeKey) -> str:
    """Format a new key; it is shown only here."""
    return f"{report.key}\n{report.keys}: key {report.name!r}, stored as a hash; the key is not shown again"


def revoked_as_text(report: RevokedKey) -> str:
    """Format the confirmation of a revoked key."""
    return f"{report.keys}: revoked key {report.name!r}"

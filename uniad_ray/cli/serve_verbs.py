"""The verbs of the endpoint."""

from __future__ import annotations

from typing import Any

import click

from uniad_ray.cli.options import address_option, overrides_option, print_report, reporting


@click.command()
@click.option("--bundles", metavar="ROOT", help="Where the bundles are.  [required, here or in --settings]")
@click.option("--settings", metavar="FILE", help="YAML file with settings; what is given beside it stands above it.")
@click.option("--runs", "runs", multiple=True, metavar="RUN", help="A run that the page may show; may be repeated.")
@click.option("--keys", metavar="FILE", help="Access keys, made by `uniad-ray serve-key`.  [default: none are needed]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@overrides_option
@address_option
@click.option("--open", "open_page", is_flag=True, help="Open the page in a browser.")
@reporting
def serve(
    bundles: str | None,
    settings: str | None,
    runs: tuple[str, ...],
    keys: str | None,
    host: str,
    port: int,
    overrides: tuple[str, ...],
    address: str | None,
    open_page: bool,
    as_json: bool,
) -> None:
    """Serve the published bundles below ROOT over HTTP, with a page to look at, until Ctrl-C.

    Whoever can reach --host can use it, unless --keys names a file; other hosts than this one therefore need --keys.
    """
    from uniad_ray import text
    from uniad_ray.serving.command import serve_until_interrupted
    from uniad_ray.serving.settings import named_runs
    from uniad_ray.serving.settings_file import read_settings

    given: dict[str, Any] = {"bundles": bundles, "runs": named_runs(runs) or None, "keys": keys}
    serve_until_interrupted(
        read_settings(settings, {key: value for key, value in given.items() if value is not None}, overrides),
        host=host,
        port=port,
        address=address,
        ready=lambda served: print_report(served, as_json, text.served),
        open_page=open_page,
    )


@click.command("serve-key")
@click.argument("name")
@click.option("--keys", required=True, metavar="FILE", help="YAML file of keys; made if it is not there.")
@click.option("--category", "categories", multiple=True, help="Only for this category; may be repeated.")
@click.option(
    "--right",
    "rights",
    multiple=True,
    type=click.Choice(["score", "runs", "review"]),
    help="What the key allows; may be repeated.  [default: score]",
)
@click.option("--images-a-minute", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True)
@click.option("--revoke", is_flag=True, help="Remove the key of that name instead.")
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
    """Make an access key called NAME; print it once, and keep its hash alone.

    A running endpoint takes changed keys up by itself.
    """
    from uniad_ray import text
    from uniad_ray.serving.key_file import add_key, revoke_key

    if revoke:
        print_report(revoke_key(keys, name), as_json, text.revoked_key)
        return
    made = add_key(
        keys,
        name,
        categories=categories or None,
        rights=frozenset(rights or ("score",)),
        images_a_minute=images_a_minute,
    )
    print_report(made, as_json, text.made_key)

"""`uniad-ray serve`: serve bundles over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from uniad_ray.cli.options import address_option, overrides_option, print_report, reporting

if TYPE_CHECKING:
    from uniad_ray.serving.command import Served


@click.command()
@click.option("--bundles", metavar="ROOT", help="Root of the bundles.  [required, here or in --settings]")
@click.option("--settings", metavar="FILE", help="YAML file with settings; command-line options override it.")
@click.option("--runs", "runs", multiple=True, metavar="RUN", help="Finished run to show on the page; may be repeated.")
@click.option(
    "--keys", metavar="FILE", help="YAML file of access keys, created by `serve-key`.  [default: no access control]"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
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
    """Serve the published bundles below ROOT over HTTP, with web pages, until Ctrl-C.

    Without --keys, there is no access control. A --host other than this machine requires --keys.
    """
    from uniad_ray.serving.command import serve_until_interrupted
    from uniad_ray.serving.settings import named_runs
    from uniad_ray.serving.settings_file import read_settings

    given: dict[str, Any] = {"bundles": bundles, "runs": named_runs(runs) or None, "keys": keys}
    serve_until_interrupted(
        read_settings(settings, {key: value for key, value in given.items() if value is not None}, overrides),
        host=host,
        port=port,
        address=address,
        ready=lambda served: print_report(served, as_json, as_text),
        open_page=open_page,
    )


def as_text(report: Served) -> str:
    """Format the address of the endpoint and an example request."""
    key = "" if report.is_open else " -H 'Authorization: Bearer KEY'"
    place = f"{report.url}v1/categories/{report.categories[0]}/score"
    return (
        f"{report.url}: serving {', '.join(report.categories)}; press Ctrl-C to stop\n"
        f"try: curl{key} -H 'Content-Type: image/png' --data-binary @IMAGE.png {place}"
    )

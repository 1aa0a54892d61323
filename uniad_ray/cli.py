"""The command line: one verb for each function of `pipelines/`, which alone imports what is heavy."""

from __future__ import annotations

import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from uniad_ray import __version__
from uniad_ray.archive.layout_names import LAYOUT_NAMES
from uniad_ray.errors import UserError

if TYPE_CHECKING:
    from pydantic import BaseModel

CallableT = TypeVar("CallableT", bound=Callable[..., Any])

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs one verb and ends the process: 0 on success, 1 where a part failed, 2 on a user's mistake, 130 on Ctrl-C."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(args=arguments, prog_name="uniad-ray", standalone_mode=False) or 0
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        code = EXIT_USER_ERROR
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; give the same command again to go on", err=True)
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _interrupt(_signal: int, _frame: Any) -> None:
    raise KeyboardInterrupt


def _reporting(verb: CallableT) -> CallableT:
    """Adds the options of every verb that reports."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout instead of text.")
    @click.option("-q", "--quiet", is_flag=True, help="Log warnings and errors only.")
    @functools.wraps(verb)
    def wrapped(*args: Any, as_json: bool, quiet: bool, **kwargs: Any) -> Any:
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.WARNING,
            format="%(asctime)s %(levelname).1s %(message)s",
            datefmt="%H:%M:%S",
        )
        logging.getLogger("uniad_ray").setLevel(logging.WARNING if quiet else logging.INFO)
        return verb(*args, as_json=as_json, **kwargs)

    return wrapped  # type: ignore[return-value]


_address = click.option("--address", help="Ray cluster to join, such as auto or HOST:6379.  [default: start Ray here]")
_category = click.option("--category", "categories", multiple=True, help="Only this category; may be repeated.")


def _print(report: BaseModel, as_json: bool, as_text: Callable[[Any], str]) -> None:
    if as_json:
        click.echo(json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False))
    else:
        click.echo(as_text(report))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="uniad-ray")
def cli() -> None:
    """Visual anomaly detection for image archives, on Ray.

    Every SOURCE, ARCHIVE, ROOT, RUN and DEST is a local path or an s3:// URI; endpoint, region and credentials are
    those that boto3 finds.
    """


@cli.command()
@click.argument("source")
@click.argument("archive")
@click.option("--category", help="Name of the category, or the one to take of a tree that holds several.")
@click.option("--layout", type=click.Choice(LAYOUT_NAMES), default="auto", show_default=True)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test", "archive"]),
    help="Split of a plain folder.  [default: archive]",
)
@click.option(
    "--label", type=click.Choice(["normal", "anomalous"]), help="Label of a plain folder.  [default: unknown]"
)
@click.option("--shard-images", type=click.IntRange(1), default=1024, show_default=True, help="Most images in a shard.")
@click.option("--shard-mib", type=click.IntRange(1, 2048), default=128, show_default=True, help="Most MiB in a shard.")
@click.option(
    "--chunk-images", type=click.IntRange(1, 64), default=64, show_default=True, help="Most images in a row group."
)
@_address
@_reporting
def ingest(
    source: str,
    archive: str,
    category: str | None,
    layout: Any,
    split: Any,
    label: Any,
    shard_images: int,
    shard_mib: int,
    chunk_images: int,
    address: str | None,
    as_json: bool,
) -> None:
    """Read the images of SOURCE into the Parquet shards of ARCHIVE.

    SOURCE is an MVTec-style tree (MVTec AD, LOCO, MPDD, BTAD), VisA, MVTec AD 2, one of BMAD's sets, or any folder or
    prefix of images; docs/layouts.md shows them. Run again after a break it goes on; run again later it adds what is
    new.
    """
    from uniad_ray import text
    from uniad_ray.archive.shards import ShardLimits
    from uniad_ray.pipelines.ingest import ingest as run

    limits = ShardLimits(rows=shard_images, bytes=shard_mib << 20, row_group_rows=chunk_images)
    report = run(
        source, archive, category=category, layout=layout, split=split, label=label, limits=limits, address=address
    )
    _print(report, as_json, text.ingested)


@cli.command()
@click.argument("archive")
@_reporting
def inspect(archive: str, as_json: bool) -> None:
    """Show what ARCHIVE holds."""
    from uniad_ray import text
    from uniad_ray.archive.manifest import read_manifest
    from uniad_ray.archive.object_store import Location

    _print(read_manifest(Location.parse(archive)), as_json, text.archive_contents)


_profile = click.option(
    "--profile", default="embedded", show_default=True, metavar="NAME|FILE", help="A profile, or a YAML file."
)
_overrides = click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one option; may be repeated."
)


@cli.command()
@click.argument("archive")
@click.option("--bundles", required=True, metavar="ROOT", help="Where the bundles are.")
@_category
@_profile
@_overrides
@click.option("--publish/--no-publish", default=True, show_default=True, help="Publish what was fitted and verified.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@_address
@_reporting
def fit(
    archive: str,
    bundles: str,
    categories: tuple[str, ...],
    profile: str,
    overrides: tuple[str, ...],
    publish: bool,
    device: str,
    address: str | None,
    as_json: bool,
) -> int:
    """Fit a bundle for each category of ARCHIVE on its normal images."""
    from uniad_ray import text
    from uniad_ray.config.loading import load_config
    from uniad_ray.pipelines.fit import fit as run

    config = load_config(profile, overrides)
    where = f"profile {profile}" + (" with --set" if overrides else "")
    report = run(
        archive, bundles, config, categories=categories, where=where, publish=publish, device=device, address=address
    )
    _print(report, as_json, text.fitted)
    return 1 if report.failed else 0


@cli.command()
@click.argument("archive")
@click.option("--bundles", required=True, metavar="ROOT", help="Where the bundles are.")
@click.option(
    "--out", required=True, metavar="RUN", help="Where the run goes; the same RUN again goes on after a break."
)
@_category
@click.option("--split", "splits", multiple=True, help="Only this split; may be repeated.")
@click.option(
    "--maps", type=click.Choice(["all", "top", "none"]), default="all", show_default=True, help="Maps to keep."
)
@click.option(
    "--top-maps", type=click.IntRange(1), default=100, show_default=True, help="Maps per category with --maps top."
)
@click.option("--false-positive-rate", type=float, help="Another rate for the threshold than the bundle's.")
@click.option(
    "--experts",
    metavar="NAME,...",
    help="Experts that take part; the threshold follows from their held-out scores.  [default: all of the bundle]",
)
@click.option("--workers", type=click.IntRange(1), help="Actors that score.  [default: by the cluster]")
@click.option("--threads", type=click.IntRange(1), help="Threads of an actor.  [default: by the cluster]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@_address
@_reporting
def score(
    archive: str,
    bundles: str,
    out: str,
    categories: tuple[str, ...],
    splits: tuple[str, ...],
    maps: Any,
    top_maps: int,
    false_positive_rate: float | None,
    experts: str | None,
    workers: int | None,
    threads: int | None,
    device: str,
    address: str | None,
    as_json: bool,
) -> None:
    """Score every image of ARCHIVE with the published bundles.

    Killed at any moment and given again, the command scores what is missing. An image that cannot be read becomes a row
    with status error.
    """
    from uniad_ray import text
    from uniad_ray.config.loading import validate
    from uniad_ray.pipelines.run_plan import ScoreOptions, selected_categories
    from uniad_ray.pipelines.score import Workers
    from uniad_ray.pipelines.score import score as run

    document = {
        "categories": selected_categories(categories),
        "splits": selected_categories(splits),
        "maps": maps,
        "top_maps": top_maps,
        "false_positive_rate": false_positive_rate,
        "experts": None if experts is None else [name.strip() for name in experts.split(",")],
    }
    options = validate(ScoreOptions, document, where="the command line")
    report = run(archive, bundles, out, options=options, workers=Workers(workers, threads, device), address=address)
    _print(report, as_json, text.scored)


_resamples = click.option(
    "--resamples",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Of the bootstrap; 0: no intervals.",
)
_confidence = click.option(
    "--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95, show_default=True
)


@cli.command()
@click.argument("run")
@_resamples
@_confidence
@_reporting
def evaluate(run: str, resamples: int, confidence: float, as_json: bool) -> None:
    """Set the scores of RUN against labels and masks; print and store the figures with their intervals."""
    from uniad_ray import text
    from uniad_ray.pipelines.evaluate import evaluate as evaluate_run

    _print(evaluate_run(run, resamples=resamples, confidence=confidence), as_json, text.evaluated)


@cli.command()
@click.argument("run")
@click.option(
    "--format", "kind", type=click.Choice(["html", "json", "parquet", "markdown"]), default="html", show_default=True
)
@click.option("--out", metavar="PATH", help="File to write.  [default: below RUN/report]")
@_resamples
@_confidence
@_reporting
def report(run: str, kind: Any, out: str | None, resamples: int, confidence: float, as_json: bool) -> None:
    """Write a report of RUN: figures, curves, the images to look at, errors, lineage.

    The HTML report is one file that needs nothing else; a run without labels gets the parts that need none.
    """
    from uniad_ray import text
    from uniad_ray.pipelines.report import report as report_run

    result = report_run(run, format=kind, out=out, resamples=resamples, confidence=confidence)
    _print(result, as_json, text.reported)


@cli.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--out", metavar="PATH", help="HTML file to write beside what is printed.")
@_resamples
@_confidence
@_reporting
def compare(runs: tuple[str, ...], out: str | None, resamples: int, confidence: float, as_json: bool) -> None:
    """Compare runs on the same archive with the first: figures with paired intervals, decisions that changed."""
    from uniad_ray import text
    from uniad_ray.pipelines.compare import compare as compare_runs

    _print(compare_runs(runs, out=out, resamples=resamples, confidence=confidence), as_json, text.compared)


@cli.command()
@click.argument("archive")
@click.option("--table", type=click.IntRange(4, 9), required=True, help="Number of the table in the UniAD paper.")
@click.option(
    "--work", required=True, metavar="ROOT", help="Where variants are kept; given again, none is fitted twice."
)
@_category
@_profile
@_overrides
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    default=("resnet18",),
    show_default=True,
    help="Another architecture of the student, for table 4; may be repeated.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@_address
@_reporting
def ablate(
    archive: str,
    table: int,
    work: str,
    categories: tuple[str, ...],
    profile: str,
    overrides: tuple[str, ...],
    backbones: tuple[str, ...],
    device: str,
    address: str | None,
    as_json: bool,
) -> None:
    """Fill in an ablation table of UniAD on ARCHIVE, whose anomalies need labels.

    Tables 4 to 6 train other students; 7, 8 and 9 fuse the evidence of one fit in other ways.
    """
    from uniad_ray import text
    from uniad_ray.pipelines.ablate import ablate as run

    report = run(
        archive,
        work,
        table,
        profile=profile,
        overrides=overrides,
        backbones=backbones,
        categories=categories,
        device=device,
        address=address,
    )
    _print(report, as_json, text.ablated)


@cli.command()
@click.argument("root")
@click.option("--publish", nargs=2, metavar="CATEGORY VERSION", help="Make this version the one that scores CATEGORY.")
@_reporting
def bundles(root: str, publish: tuple[str, str] | None, as_json: bool) -> None:
    """List the bundles of ROOT, or publish a version, newer or older."""
    from uniad_ray import text
    from uniad_ray.pipelines.bundles import list_bundles, publish_bundle

    if publish is not None:
        publish_bundle(root, *publish)
    _print(list_bundles(root), as_json, text.bundle_list)


@cli.command()
@click.argument("dest")
@click.option("--category", default="trays", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--image-size", type=int, default=256, show_default=True, help="Side of the images, pixels.")
@click.option("--train", type=int, default=80, show_default=True, help="Normal images to fit on.")
@click.option("--validation", type=int, default=0, show_default=True, help="Normal images in LOCO's validation split.")
@click.option("--test-good", type=int, default=40, show_default=True, help="Normal images in the test split.")
@click.option("--logical", type=int, default=40, show_default=True, help="Logical anomalies.")
@click.option("--structural", type=int, default=40, show_default=True, help="Structural anomalies.")
@_reporting
def scenes(dest: str, as_json: bool, **options: Any) -> None:
    """Draw a synthetic category of trays with logical and structural anomalies into DEST."""
    from uniad_ray import text
    from uniad_ray.archive.scenes import SceneConfig
    from uniad_ray.config.loading import validate
    from uniad_ray.pipelines.scenes import write_scenes

    config = validate(SceneConfig, options, where="the command line")
    _print(write_scenes(dest, config), as_json, text.drawn)


if __name__ == "__main__":
    main()

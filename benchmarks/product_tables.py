"""The results of `products.py` over all products: means, medians, worst products, and a table as text."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

FUSED = "fused"
"""Name of the fused score in the results."""
GROUPS = ("logical", "structural", "large", "small")
"""Groups of anomalies; `large` and `small` are the structural ones of at least 0.4 % of the image, and below."""


def summary(products: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Mean, median and the five worst products of each expert and group; failed products are listed, not counted."""
    done = {seed: found for seed, found in products.items() if "failed" not in found}
    names = dict.fromkeys(name for found in done.values() for name in found["auroc"])
    return {
        "products": len(done),
        "failed": {seed: found["failed"] for seed, found in products.items() if "failed" in found},
        "auroc": {
            name: {
                group: spread({seed: found["auroc"].get(name, {}).get(group) for seed, found in done.items()})
                for group in GROUPS
            }
            for name in names
        },
        "recall": {
            group: spread({seed: found["recall"].get(group) for seed, found in done.items()}) for group in GROUPS
        },
        "rules": rules_summary(done),
        **{
            figure: spread({seed: found[figure] for seed, found in done.items()}, worst_is_high=True)
            for figure in ("false_alarms", "fit_seconds_per_image", "score_seconds_per_image", "peak_mib")
        },
    }


def rules_summary(products: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean AUROC of each expert by rule, over the products with anomalies that break it."""
    values: dict[str, dict[str, list[float]]] = {}
    for found in products.values():
        for name, rules in found["rules"].items():
            for rule, value in rules.items():
                if value is not None:
                    values.setdefault(rule, {}).setdefault(name, []).append(value)
    return {
        rule: {"products": len(by_expert[FUSED])} | {name: statistics.fmean(each) for name, each in by_expert.items()}
        for rule, by_expert in sorted(values.items())
    }


def spread(values: Mapping[str, float | None], *, worst_is_high: bool = False) -> dict[str, Any] | None:
    """Mean, median and the five worst of values by seed; None without a value."""
    known = {seed: value for seed, value in values.items() if value is not None}
    if not known:
        return None
    ordered = sorted(known.items(), key=lambda entry: (-entry[1] if worst_is_high else entry[1], int(entry[0])))
    return {
        "mean": statistics.fmean(known.values()),
        "median": statistics.median(known.values()),
        "worst": dict(ordered[:5]),
    }


def table(results: Mapping[str, Any]) -> str:
    """The results as text: one line per product, then one per expert over all products."""
    lines = [
        "AUROC in per cent of the fused score; large and small: structural anomalies from 0.4 % of the image up, and "
        "below",
        "",
        _line("seed", "layout", *GROUPS, "false alarms", "fit s/image", "score s/image", "MiB", "experts"),
    ]
    for seed, found in sorted(results["products"].items(), key=lambda entry: int(entry[0])):
        if "failed" in found:
            lines.append(f"{seed:>5}  failed: {found['failed']}")
            continue
        figures = [f"{100 * found['false_alarms']:.1f} %"]
        figures += [f"{found[name]:.2f}" for name in ("fit_seconds_per_image", "score_seconds_per_image")]
        figures += [f"{found['peak_mib']:.0f}", " ".join(found["selected"])]
        lines.append(
            _line(seed, found["layout"], *(_number(found["auroc"][FUSED][group]) for group in GROUPS), *figures)
        )
    summed = results["summary"]
    lines += ["", f"mean (median) of {summed['products']} products", "", _line("", "expert", *GROUPS)]
    for name, groups in summed["auroc"].items():
        values = [groups[group] for group in GROUPS]
        lines.append(
            _line("", name, *("-" if one is None else f"{one['mean']:.1f} ({one['median']:.1f})" for one in values))
        )
    lines += ["", "logical anomalies by rule: fused score, and the three best experts", ""]
    for rule, figures in summed["rules"].items():
        best = sorted((name for name in figures if name not in ("products", FUSED)), key=lambda name: -figures[name])
        lines.append(
            _line("", rule, f"{figures['products']:.0f} products", f"{figures[FUSED]:.1f}")
            + "   "
            + ", ".join(f"{name} {figures[name]:.1f}" for name in best[:3])
        )
    lines += ["", "anomalies found at 1 % false alarms, per cent: mean (median), worst products"]
    for group, found in summed["recall"].items():
        if found is not None:
            worst = ", ".join(f"{seed}: {value:.0f}" for seed, value in found["worst"].items())
            lines.append(_line("", group, f"{found['mean']:.1f} ({found['median']:.1f})") + f"   {worst}")
    lines += ["", "worst products of the fused score"]
    for group in GROUPS:
        worst = (summed["auroc"].get(FUSED, {}).get(group) or {"worst": {}})["worst"]
        lines.append(_line("", group) + "  " + ", ".join(f"{seed}: {value:.1f}" for seed, value in worst.items()))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _line(seed: str, name: str, *cells: str) -> str:
    return (
        f"{seed:>5}  {name:<18}"
        + "".join(f"{cell:>15}" for cell in cells[:8])
        + "".join(f"  {cell}" for cell in cells[8:])
    )

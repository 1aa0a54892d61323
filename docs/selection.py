"""Draw images/selection.svg: what each expert of a fitted category detects, and the weight it gets.

python docs/selection.py night/bundles trays
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from uniad_ray.config.expert_selection import ExpertSelectionConfig
from uniad_ray.scoring.bundles.store import BundleStore
from uniad_ray.scoring.selection import CandidateExpert, ExpertSelection

FILE: Final = Path(__file__).parent / "images/selection.svg"
_FAMILIES: Final = ("surface", "amount", "place", "combination")
_LEFT, _CELL, _ROW, _TOP = 275, 88, 26, 66
_BARS: Final = _LEFT + len(_FAMILIES) * _CELL + 30
_LONGEST_BAR: Final = 220


def main() -> None:
    """Draw the selection of one category."""
    bundles, category = sys.argv[1:]
    manifest = BundleStore(bundles).load(category).manifest
    selection, config = manifest.calibration.selection, manifest.config.chosen_fusion.selection
    if selection is None or config is None:
        sys.exit(f"{category}: its expert set has no selection")
    FILE.write_text(drawing(selection, config), "utf-8")


def drawing(selection: ExpertSelection, config: ExpertSelectionConfig) -> str:
    """The picture as SVG."""
    parts: list[str] = []
    top = _TOP
    for title, kind, judged in (
        ("structural experts", config.surface, ("surface",)),
        ("logical experts", config.arrangement, _FAMILIES[1:]),
    ):
        parts.append(_text(16, top + 4, title, weight="bold"))
        top += 14
        for name in (*kind.base, *sorted(kind.candidates, key=lambda name: -selection.weights[name])):
            top += _ROW
            parts += _row(top, name, name in kind.base, selection, judged)
        top += 2 * _ROW
    head = [
        _text(_LEFT + _CELL * column + _CELL / 2, 30, label, anchor="middle") for column, label in enumerate(_FAMILIES)
    ]
    head += [
        _text(_LEFT + len(_FAMILIES) * _CELL / 2, 12, "AUROC alone on synthetic anomalies", anchor="middle"),
        _text(_BARS, 30, "weight in the fused score"),
    ]
    width, height = _BARS + _LONGEST_BAR + 60, top - _ROW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="13">',
            "<title>Expert selection of one category</title>",
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
            *head,
            *parts,
            "</svg>\n",
        ]
    )


def _row(top: float, name: str, in_base: bool, selection: ExpertSelection, judged: tuple[str, ...]) -> list[str]:
    found = selection.experts[name]
    parts = [
        _text(30, top + 4, name + ("" if in_base else " (candidate)"), colour="#202020" if found.weight else "#808080")
    ]
    for column, family in enumerate(_FAMILIES):
        value = found.auroc.get(family)
        if value is None:
            continue
        left = _LEFT + _CELL * column
        counts = family in judged
        opacity = max(0.0, min(1.0, 2.0 * (value - 0.5))) * (0.75 if counts else 0.2)
        parts.append(
            f'<rect x="{left + 3}" y="{top - 11}" width="{_CELL - 6}" height="{_ROW - 4}" rx="3" fill="#2b6cb0" '
            f'fill-opacity="{opacity:.2f}" stroke="#a0aec0"/>'
        )
        light = opacity > 0.45
        colour = "#ffffff" if light else "#202020" if counts else "#808080"
        parts.append(_text(left + _CELL / 2, top + 4, f"{100 * value:.0f}", anchor="middle", colour=colour))
    length = _LONGEST_BAR * found.weight
    parts.append(f'<rect x="{_BARS}" y="{top - 9}" width="{length:.1f}" height="{_ROW - 8}" fill="#2f855a"/>')
    parts.append(_text(_BARS + length + 6, top + 4, _use(found)))
    return parts


def _use(found: CandidateExpert) -> str:
    if not found.is_fitted:
        return "not trained"
    return f"{found.weight:.2f}" if found.weight else "not used"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal", colour: str = "#202020"
) -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="{colour}"'
    return f'<text x="{x:.0f}" y="{y:.0f}" {style}>{escape(text)}</text>'


if __name__ == "__main__":
    main()

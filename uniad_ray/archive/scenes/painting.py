"""Draws a scene: tray, parts and damage as colour and relief, then light, camera and noise.

The canvas has twice the resolution of the image in each direction; an image pixel is the mean of two by two pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from uniad_ray.archive.scenes.damage import BoolPlane, Surface, damage_surface, deformation_mask, draw_deformation
from uniad_ray.archive.scenes.model import Cell, Colour, Damage, Part, PartKind, Scene, StructuralDefect
from uniad_ray.archive.scenes.rules import METALS, SceneRules
from uniad_ray.archive.scenes.shading import shade
from uniad_ray.archive.scenes.shapes import PART_SCALE, REACH, Deformation, Plane, rounded_box, solid

REFERENCE_SIZE = 256.0
"""Side of the image, in pixels, that all lengths refer to."""

_FINE = 2
_TRAY_WIDTH, _TRAY_HEIGHT, _RIM, _WALL = 246.0, 240.0, 3.0, 5.0
_RIM_HEIGHT = 7.0
_ALBEDO: dict[Colour, tuple[float, float, float]] = {
    Colour.STEEL: (0.50, 0.52, 0.55),
    Colour.BRASS: (0.62, 0.44, 0.13),
    Colour.RED: (0.70, 0.10, 0.09),
    Colour.BLUE: (0.10, 0.23, 0.65),
}


@dataclass(frozen=True, slots=True)
class Rendering:
    """A drawn scene and its ground truth.

    Attributes:
        image: uint8 [size, size, 3], RGB.
        part_masks: Covered pixels of each part, bool [size, size], in the order of `scene.parts`.
        damage_mask: Damaged pixels, bool [size, size]; None if the scene has no damage.
        cell_masks: The floor of each cell, bool [size, size].
    """

    image: npt.NDArray[np.uint8]
    part_masks: tuple[BoolPlane, ...]
    damage_mask: BoolPlane | None
    cell_masks: dict[Cell, BoolPlane]


def part_masks(scene: Scene, rules: SceneRules, image_size: int) -> tuple[BoolPlane, ...]:
    """Covered pixels of each part of a scene, bool [image_size, image_size]."""
    return render(scene, rules, image_size).part_masks


def render(scene: Scene, rules: SceneRules, image_size: int) -> Rendering:
    """Draws a scene.

    Args:
        scene: The scene to draw; the same scene gives the same pixels.
        rules: The grid of the tray.
        image_size: Side of the image in pixels.
    """
    return _Painter(scene, rules, image_size).paint()


class _Painter:
    """The canvas of one scene and its coordinates."""

    def __init__(self, scene: Scene, rules: SceneRules, image_size: int) -> None:
        self.scene, self.rules, self.size = scene, rules, image_size
        self.fine = image_size * _FINE
        self.scale = self.fine / REFERENCE_SIZE
        self.rng = np.random.default_rng(scene.view.texture_seed)
        self.pitch = ((_TRAY_WIDTH - 2 * _RIM) / rules.columns, (_TRAY_HEIGHT - 2 * _RIM) / rules.rows)
        axis = ((np.arange(self.fine, dtype=np.float32) + 0.5) / self.scale - REFERENCE_SIZE / 2).astype(np.float32)
        turn = np.deg2rad(scene.view.turn)
        cos, sin = np.float32(np.cos(turn) / scene.view.zoom), np.float32(np.sin(turn) / scene.view.zoom)
        off_x, off_y = axis[None, :] - np.float32(scene.view.shift[0]), axis[:, None] - np.float32(scene.view.shift[1])
        self.x: Plane = off_x * cos - off_y * sin
        self.y: Plane = off_x * sin + off_y * cos

    def paint(self) -> Rendering:
        surface, cells = self._tray()
        masks = []
        damage_mask = None
        damage = self.scene.damage
        for part in self.scene.parts:
            deformation = None
            if damage is not None and damage.kind is StructuralDefect.DEFORMED and damage.cell == part.cell:
                deformation = draw_deformation(part.kind, np.random.default_rng(damage.seed))
            mask = self._coarse(self._part(surface, part, deformation))
            if deformation is not None:
                damage_mask = deformation_mask(self._coarse(self._coverage(part)), mask)
            masks.append(mask)
        if damage is not None and damage.kind is not StructuralDefect.DEFORMED:
            damage_mask = self._coarse(self._damage(surface, damage, cells[damage.cell]).astype(np.float32))
        return Rendering(
            image=self._photograph(surface),
            part_masks=tuple(masks),
            damage_mask=damage_mask,
            cell_masks={cell: self._coarse(plane.astype(np.float32)) for cell, plane in cells.items()},
        )

    @staticmethod
    def _coarse(coverage: Plane) -> BoolPlane:
        return np.asarray(_shrink(coverage) > 0.5)

    def _centre(self, cell: Cell) -> tuple[float, float]:
        x = (cell[1] - (self.rules.columns - 1) / 2) * self.pitch[0]
        return x, (cell[0] - (self.rules.rows - 1) / 2) * self.pitch[1]

    def _window(self, x: float, y: float) -> tuple[slice, slice]:
        """The window of the canvas around a point of the tray."""
        turn = np.deg2rad(self.scene.view.turn)
        zoom, shift = self.scene.view.zoom, self.scene.view.shift
        column = ((x * np.cos(turn) + y * np.sin(turn)) * zoom + shift[0] + REFERENCE_SIZE / 2) * self.scale
        row = ((y * np.cos(turn) - x * np.sin(turn)) * zoom + shift[1] + REFERENCE_SIZE / 2) * self.scale
        reach = REACH * self.scale

        def span(middle: float) -> slice:
            return slice(max(0, int(middle - reach)), min(self.fine, int(middle + reach) + 1))

        return span(row), span(column)

    def _tray(self) -> tuple[Surface, dict[Cell, BoolPlane]]:
        outer = rounded_box(self.x, self.y, _TRAY_WIDTH / 2, _TRAY_HEIGHT / 2, 8.0)
        columns, rows = (
            np.clip(np.rint(axis / np.float32(pitch) + (number - 1) / 2), 0, number - 1)
            for axis, pitch, number in (
                (self.x, self.pitch[0], self.rules.columns),
                (self.y, self.pitch[1], self.rules.rows),
            )
        )
        floor_distance = rounded_box(
            self.x - (columns - (self.rules.columns - 1) / 2) * np.float32(self.pitch[0]),
            self.y - (rows - (self.rules.rows - 1) / 2) * np.float32(self.pitch[1]),
            (self.pitch[0] - _WALL) / 2,
            (self.pitch[1] - _WALL) / 2,
            5.0,
        )
        cells = {
            (row, column): np.asarray((floor_distance < 0) & (rows == row) & (columns == column))
            for row, column in self.rules.cells
        }
        tray, floor = self._cover(outer), self._cover(floor_distance)
        grain, clouds = self._grain(0.6), self._grain(2.5)
        felt, table, moulded = 0.010 * grain + 0.004 * clouds, 0.005 * clouds, 0.003 * grain
        albedo = np.empty((self.fine, self.fine, 3), np.float32)
        for channel in range(3):
            colour = (0.44, 0.42, 0.40)[channel] + table
            colour = colour + tray * ((0.30, 0.31, 0.33)[channel] + moulded - colour)
            albedo[..., channel] = colour + floor * ((0.13, 0.15, 0.16)[channel] + felt - colour)
        ramp = np.clip(-floor_distance / np.float32(4.0), 0, 1)
        edge = np.clip(-outer / np.float32(3.0), 0, 1)
        height = _RIM_HEIGHT * edge * (1 - ramp * (2 - ramp)) + felt * 6 * floor
        return Surface(albedo, height.astype(np.float32), 0.12 * tray * (1 - floor)), cells

    def _cover(self, distance: Plane) -> Plane:
        return np.asarray(np.clip(np.float32(0.5) - distance * np.float32(self.scale), 0, 1), np.float32)

    def _grain(self, sigma: float) -> Plane:
        """Noise of unit deviation with grains about `sigma` reference pixels wide."""
        white = self.rng.standard_normal((self.size, self.size), dtype=np.float32)
        smooth = ndimage.gaussian_filter(white, sigma * self.size / REFERENCE_SIZE, mode="wrap", truncate=3.0)
        grain = np.asarray(smooth / smooth.std(), np.float32)
        return grain.repeat(_FINE, axis=0).repeat(_FINE, axis=1)

    def _own(self, part: Part, window: tuple[slice, slice]) -> tuple[Plane, Plane]:
        """Coordinates along and across a part, within a window."""
        x, y = self._centre(part.cell)
        off_x, off_y = self.x[window] - np.float32(x + part.shift[0]), self.y[window] - np.float32(y + part.shift[1])
        turn, size = np.deg2rad(part.angle), part.scale * PART_SCALE
        cos, sin = np.float32(np.cos(turn) / size), np.float32(np.sin(turn) / size)
        return off_x * cos - off_y * sin, off_x * sin + off_y * cos

    def _coverage(self, part: Part) -> Plane:
        window = self._window(*self._centre(part.cell))
        canvas = np.zeros((self.fine, self.fine), np.float32)
        canvas[window] = self._cover(solid(part.kind, *self._own(part, window)).distance)
        return canvas

    def _part(self, surface: Surface, part: Part, deformation: Deformation | None) -> Plane:
        window = self._window(*self._centre(part.cell))
        u, v = self._own(part, window)
        shape = solid(part.kind, u, v, deformation)
        cover = self._cover(shape.distance)
        metal = part.colour in METALS
        streaks = self.rng.standard_normal(int(4 * REACH * 2)).astype(np.float32)
        streaks = ndimage.gaussian_filter1d(streaks, 0.8)
        across = np.hypot(u, v) if part.kind is PartKind.WASHER else v
        brushed = np.interp(across * 2, np.arange(-2 * REACH * 2, 2 * REACH * 2), streaks).astype(np.float32)
        brushed *= np.float32(0.045 if metal else 0.010)
        tone = np.float32(self.rng.uniform(0.96, 1.04))
        colour = np.asarray(_ALBEDO[part.colour], np.float32) * tone * (1 + brushed[..., None])
        surface.albedo[window] += cover[..., None] * (colour - surface.albedo[window])
        surface.height[window] += cover * (shape.relief + np.float32(0.6) - surface.height[window])
        surface.gloss[window] += cover * (np.float32(0.40 if metal else 0.55) - surface.gloss[window])
        canvas = np.zeros((self.fine, self.fine), np.float32)
        canvas[window] = cover
        return canvas

    def _damage(self, surface: Surface, damage: Damage, floor: BoolPlane) -> BoolPlane:
        rng = np.random.default_rng(damage.seed)
        x, y = self._centre(damage.cell)
        window = self._window(x, y)
        part = next((part for part in self.scene.parts if part.cell == damage.cell), None)
        within = floor[window] if part is None else np.asarray(self._coverage(part)[window] > 0.5)
        rows, columns = np.nonzero(within)
        spot_x, spot_y = self.x[window][rows, columns], self.y[window][rows, columns]
        if part is None:
            near = np.hypot(spot_x - x, spot_y - y) < 10.0
        else:
            # Keep the mark away from the outline, so that it lies on the part.
            depth = ndimage.distance_transform_edt(within)[rows, columns]
            near = depth >= 0.6 * depth.max()
        index = int(rng.choice(np.flatnonzero(near)))
        piece = Surface(surface.albedo[window], surface.height[window], surface.gloss[window])
        marked = damage_surface(
            piece, damage.kind, self.x[window] - spot_x[index], self.y[window] - spot_y[index], within, rng
        )
        canvas = np.zeros((self.fine, self.fine), np.bool_)
        canvas[window] = marked
        return canvas

    def _photograph(self, surface: Surface) -> npt.NDArray[np.uint8]:
        view = self.scene.view
        height = ndimage.gaussian_filter(surface.height, 0.35 * self.scale, truncate=3.0)
        slope_y, slope_x = np.gradient(height, np.float32(1 / self.scale))
        shading = shade(slope_y, slope_x, view.light_azimuth, (0.55, 0.835))
        highlight = surface.gloss * shading.highlight
        # A point a little towards the light that is higher casts a soft shadow.
        blocker = ndimage.shift(
            ndimage.gaussian_filter(surface.height, 1.2 * self.scale, truncate=2.5),
            -3.0 * self.scale * shading.towards[::-1],
            order=1,
            mode="nearest",
        )
        shadow = 1 - 0.45 * np.clip((blocker - height - 0.5) / 4.0, 0, 1)
        image = (
            surface.albedo * ((0.30 + 0.66 * shading.diffuse * shadow)[..., None])
            + (0.25 * highlight * shadow)[..., None]
        )
        image = _shrink(image)
        axis = (np.arange(self.size, dtype=np.float32) + 0.5) / self.size * 2 - 1
        falloff = 1 - view.vignette * (axis[:, None] ** 2 + axis[None, :] ** 2) / 2
        image *= falloff[..., None] * (np.asarray(view.tint, np.float32) * np.float32(view.exposure))
        # Gamma 2.2 turns light into grey levels; sensor noise is added to its output.
        grey = 255 * np.clip(image, 0, 1) ** np.float32(1 / 2.2)
        grey += np.float32(view.noise) * self.rng.standard_normal(grey.shape, dtype=np.float32)
        return np.asarray(np.clip(np.rint(grey), 0, 255), np.uint8)


def _shrink(plane: Plane) -> Plane:
    """Mean over squares of `_FINE` by `_FINE` pixels of [h, w] or [h, w, 3]."""
    total = sum(plane[row::_FINE, column::_FINE] for row in range(_FINE) for column in range(_FINE))
    return np.asarray(total / np.float32(_FINE**2), np.float32)

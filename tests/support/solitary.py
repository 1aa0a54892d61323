"""An expert that notes in which processes it learns, and can end all but the first, as lack of memory would."""

from __future__ import annotations

import os
from pathlib import Path

from support.learned import Brightness

from uniad_ray.config.base import StrictModel
from uniad_ray.perception.base import PerceptionStream


class SolitaryConfig(StrictModel):
    """The file of process ids, and whether to end other processes than the first."""

    marker: str
    ends: bool = False


class Solitary(Brightness):
    """Scores the mean brightness."""

    config_model = SolitaryConfig

    def __init__(self, name: str, config: SolitaryConfig) -> None:
        super().__init__(name, config)
        self._config = config

    def fit(self, stream: PerceptionStream) -> None:
        super().fit(stream)
        marker, own = Path(self._config.marker), str(os.getpid())
        first = marker.read_text().split()[0] if marker.exists() else own
        with marker.open("a") as file:
            file.write(f"{own}\n")
        if self._config.ends and own != first:
            os._exit(1)

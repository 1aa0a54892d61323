from __future__ import annotations

from pathlib import Path

import pytest

from uniad_ray.errors import ConfigError
from uniad_ray.nights.config import load_nightly

GOOD = "work: w\narchive: a\nbundles: b\n"


def test_defaults(tmp_path: Path) -> None:
    path = tmp_path / "nightly.yaml"
    path.write_text(GOOD, "utf-8")
    config = load_nightly(str(path))
    assert (config.sources, config.notify.webhooks, config.keep_runs, str(config.zone)) == ((), {}, None, "UTC")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{GOOD}alarm: {{}}\n", "alarm: unknown key; allowed: address, alarms, archive"),
        (f"{GOOD}alarms: {{reject: 1}}\n", "alarms.reject: unknown key; allowed: captions, drift, error_share"),
        ("work: w\n", "archive: missing; bundles: missing"),
        (f"{GOOD}time_zone: Mars/Base\n", "time_zone: use a name of the time zone database"),
        (f"{GOOD}sources: [{{path: p, layout: none}}]\n", "sources.0.layout: use one of auto"),
        (
            f"{GOOD}notify: {{mail: {{'a/b': {{host: h, sender: a@b, recipients: [c@d]}}}}}}\n",
            "name 'a/b' may only have",
        ),
        ("- work\n", "expected keys and values at the top level"),
        ("work: [", "not valid YAML"),
    ],
)
def test_wrong_configuration_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "nightly.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as raised:
        load_nightly(str(path))
    assert str(raised.value).startswith(f"{path}: ")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_secret_in_the_file_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "nightly.yaml"
    path.write_text(f"{GOOD}notify: {{webhooks: {{a: {{url: 'http://a', secret: {{key: hidden}}}}}}}}\n", "utf-8")
    with pytest.raises(ConfigError, match=r"notify.webhooks.a.secret.key: unknown key; allowed: env, file") as raised:
        load_nightly(str(path))
    assert "hidden" not in str(raised.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_nightly(str(tmp_path / "none.yaml"))

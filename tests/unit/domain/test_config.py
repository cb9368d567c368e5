"""Tests of ``domain.config``."""

from pathlib import Path
from typing import Any

import pytest

from tailorbird.domain.budget import Budget
from tailorbird.domain.config import BuildConfig, Limits, load_config
from tailorbird.domain.errors import UsageError

TOML = """
[build]
opt_shapes = "x:1x3"
threads = [1, 2]
seed = 7
[build.budget]
snr_db = 30
[build.limits]
seconds = 5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tailorbird.toml"
    path.write_text(TOML)
    return path


def refusal(path: Path, text: str | None = None, **flags: Any) -> str:
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as refused:
        load_config(path, **flags)
    return refused.value.message


def test_no_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(tmp_path / "none.toml") == BuildConfig()


def test_the_file_is_read(file: Path) -> None:
    assert load_config(file) == BuildConfig(
        opt_shapes="x:1x3", threads=(1, 2), seed=7, budget=Budget(snr_db=30.0), limits=Limits(seconds=5.0)
    )


def test_flags_win_over_the_file_and_none_is_no_flag(file: Path) -> None:
    found = load_config(file, seed=8, threads=None, data="calib.npz")
    assert (found.seed, found.threads, found.data) == (8, (1, 2), "calib.npz")


def test_a_flag_inside_a_table_leaves_the_rest_of_the_table(file: Path) -> None:
    assert load_config(file, limits={"memory_bytes": 1024}).limits == Limits(seconds=5.0, memory_bytes=1024)
    assert load_config(file, limits=Limits(seconds=9.0)).limits == Limits(seconds=9.0)


def test_an_unknown_setting_names_the_nearest(file: Path) -> None:
    fields = ", ".join(BuildConfig.__struct_fields__)
    assert refusal(file, "[build]\nthread = [1]") == (
        f"unknown setting 'thread': expected {fields}\nHint: did you mean 'threads'?"
    )
    assert refusal(file, "", zzz=1) == f"unknown setting 'zzz': expected {fields}"
    assert refusal(file, "[build.budget]\nsnr_bd = 3") == (
        "unknown setting 'budget.snr_bd': expected snr_db, cosine, top1, share, drop, metric, fidelity\n"
        "Hint: did you mean 'snr_db'?"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[build]\nseed = 'x'", "setting 'seed' has the wrong value: expected `int`, got `str`"),
        ("[build]\nthreads = [1, 'x']", "setting 'threads[1]' has the wrong value: expected `int`, got `str`"),
        ("[build.limits]\nseconds = 'x'", "setting 'limits.seconds' has the wrong value: expected `float`, got `str`"),
        ("[build]\nbudget = 3", "setting 'budget' has the wrong value: expected `object`, got `int`"),
        ("[build]\nseed = true", "setting 'seed' has the wrong value: expected `int`, got `bool`"),
    ],
)
def test_a_wrong_value_is_named(file: Path, text: str, message: str) -> None:
    assert refusal(file, text) == message


def test_a_file_that_is_not_settings(file: Path, tmp_path: Path) -> None:
    assert refusal(file, "[bulid]\n") == f"unknown table 'bulid' in {file}: expected [build]"
    assert refusal(file, "build = 3\n") == f"'build' in {file} is not a table: got 3, expected [build]"
    assert refusal(file, "[build").startswith(f"cannot read {file}: got ")
    file.write_bytes(b"\xff\xfe")
    assert refusal(file).endswith(", expected TOML")
    assert refusal(tmp_path).startswith(f"cannot read {tmp_path}: got [Errno 21]")

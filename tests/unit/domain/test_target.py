"""Tests of ``domain.target``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailorbird.domain.errors import UsageError
from tailorbird.domain.target import Target

WORD = st.from_regex(r"[a-z0-9_]+", fullmatch=True)


@given(WORD, WORD, WORD)
def test_text_parses_back(runtime: str, device: str, arch: str) -> None:
    target = Target(runtime, device, arch)
    assert Target.parse(str(target)) == target


def test_text_is_what_people_write() -> None:
    assert str(Target("openvino", "cpu", "avx512")) == "openvino:cpu:avx512"


@pytest.mark.parametrize("text", ["", "openvino", "a:b", "a:b:c:d", "a::c", "A:b:c", "a:b:c\n", " a:b:c", "a:b:é"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        Target.parse(text)
    assert refused.value.message == f"cannot read target: got {text!r}, expected runtime:device:arch"

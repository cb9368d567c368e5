"""A coroutine whose first steps are taken outside its task: nothing is lost or done twice on the way over."""

import asyncio
from collections.abc import Callable

import pytest

from tailorbird.service.web.steps import Begun

Future = asyncio.Future[str]


async def _answer(future: Future, seen: list[object]) -> None:
    try:
        seen.append(await future)
        await asyncio.sleep(0)
        seen.append("end")
    except BaseException as error:
        seen.append(type(error))
        raise


def _after_first_steps(then: Callable[[Future, Begun], object]) -> list[object]:
    seen: list[object] = []

    async def main() -> None:
        future: Future = asyncio.get_running_loop().create_future()
        answering = _answer(future, seen)
        begun = Begun(answering, answering.send(None), begun=True)
        then(future, begun)
        await begun.rest()

    asyncio.run(main())
    return seen


def test_what_has_come_meanwhile_is_not_waited_for() -> None:
    assert _after_first_steps(lambda future, _: future.set_result("here")) == ["here", "end"]


def test_what_comes_later_is_waited_for() -> None:
    def later(future: Future, _: Begun) -> None:
        asyncio.get_running_loop().call_later(0.01, future.set_result, "late")

    assert _after_first_steps(later) == ["late", "end"]


def test_what_is_waited_for_may_fail() -> None:
    with pytest.raises(ValueError, match="no"):
        _after_first_steps(lambda future, _: future.set_exception(ValueError("no")))


def test_a_cancelled_wait_reaches_the_coroutine() -> None:
    seen: list[object] = []

    async def main() -> None:
        future: Future = asyncio.get_running_loop().create_future()
        answering = _answer(future, seen)
        begun = Begun(answering, answering.send(None), begun=True)
        begun.breaks(asyncio.CancelledError())
        with pytest.raises(asyncio.CancelledError):
            await begun.rest()

    asyncio.run(main())
    assert seen == [asyncio.CancelledError]


def test_one_not_begun_is_run_from_its_start() -> None:
    seen: list[object] = []

    async def main() -> None:
        future: Future = asyncio.get_running_loop().create_future()
        future.set_result("here")
        await Begun(_answer(future, seen)).rest()

    asyncio.run(main())
    assert seen == ["here", "end"]

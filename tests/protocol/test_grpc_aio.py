"""The official asynchronous client over gRPC, in the event loop of the server itself.

One poller of gRPC serves all event loops of a process, and older ones complain of it; so the two share a loop here.
"""

import asyncio
import gc

import numpy as np
import pytest

pytest.importorskip("grpc", reason="grpcio is not installed")
pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")

import tritonclient.grpc as triton
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException

from tailorbird.domain.dtype import DType
from tailorbird.service.rpc.listener import GrpcListener
from tailorbird.serving.dataplane import DataPlane
from tailorbird.serving.hub import Hub
from tests.protocol.engines import echo_model


def tensor(number):
    made = triton.InferInput("x", [2], "FP32")
    made.set_data_from_numpy(np.full(2, number, np.float32))
    return made


def with_client(test, delay=0.0):
    """Run ``test(client, model)`` beside a server."""
    model = echo_model("echo", DType.FP32, delay=delay)

    async def main():
        listener = GrpcListener(DataPlane(Hub([model])), "127.0.0.1", 0)
        await listener.start()
        try:
            async with aio.InferenceServerClient(listener.address) as client:
                await test(client, model)
        finally:
            await listener.drain(5)
            assert listener.port

    asyncio.run(main())
    model.instance.close()
    gc.collect()  # what gRPC does not like to be left with shows up in this test


def test_everything_at_once():
    async def test(client, model):
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("echo")
        assert not await client.is_model_ready("other")
        assert (await client.get_server_metadata()).name == "tailorbird"
        assert (await client.get_model_metadata("echo")).inputs[0].shape == [-1]
        results = await asyncio.gather(*(client.infer("echo", [tensor(one)], request_id=str(one)) for one in range(50)))
        assert [result.as_numpy("y").tolist() for result in results] == [[one, one] for one in range(50)]
        assert [result.get_response().id for result in results] == [str(one) for one in range(50)]
        with pytest.raises(InferenceServerException, match="unknown model 'ecko'") as caught:
            await client.infer("ecko", [tensor(1)])
        assert caught.value.status() == "StatusCode.NOT_FOUND"

    with_client(test)


def test_a_stream():
    async def test(client, model):
        async def requests():
            for one in range(30):
                yield {"model_name": "ecko" if one == 7 else "echo", "inputs": [tensor(one)], "request_id": str(one)}

        seen = [answer async for answer in client.stream_infer(requests())]
        assert len(seen) == 30
        for one, (result, error) in enumerate(seen):
            if one == 7:
                assert "unknown model 'ecko'" in error.message()
            else:
                assert (error, result.get_response().id, result.as_numpy("y").tolist()) == (None, str(one), [one, one])

    with_client(test)


def test_a_stream_that_is_left():
    async def test(client, model):
        async def requests():
            for one in range(100):
                yield {"model_name": "echo", "inputs": [tensor(one)]}

        answers = client.stream_infer(requests())
        async for _ in answers:
            assert answers.cancel()
            break
        for _ in range(100):
            await asyncio.sleep(0.02)
            if not model.instance.outstanding:
                break
        assert model.instance.outstanding == 0
        assert await client.is_server_live()

    with_client(test, delay=0.02)


def test_a_task_that_is_cancelled_frees_the_queue():
    async def test(client, model):
        tasks = [asyncio.create_task(client.infer("echo", [tensor(one)])) for one in range(4)]
        while model.instance.outstanding < 4:
            await asyncio.sleep(0.005)
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[0].result().as_numpy("y").tolist() == [0, 0]
        assert [task.cancelled() for task in tasks] == [False, True, True, True]
        begun = asyncio.get_running_loop().time()
        await client.infer("echo", [tensor(5)])
        assert asyncio.get_running_loop().time() - begun < 0.6  # its own 0.3 s, not those of the three that left

    with_client(test, delay=0.3)

"""How the official clients are used: at once, asynchronously, in streams, with limits of time."""

import asyncio
import queue
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tritonclient.grpc.aio
import tritonclient.http.aio

from tests.conformance.data import raw_request
from tests.conformance.models import SLOW_SECONDS
from tests.conformance.requests import ONE, one, pair
from tests.conformance.suite import GRPC, HTTP, check, refusal, same, status

CLIENTS = 8
EACH = 10


@check()
def many_clients_at_once(door):
    """Each asks with numbers of its own, and must get its own back."""

    def ask(number):
        with door.module.InferenceServerClient(door.address) as client:  # HTTP's is for one thread
            for turn in range(EACH):
                rows = np.full((1 + turn % 3, 2), number * 1000 + turn, np.float32)
                answer = client.infer("identity_fp32", one(door, rows))
                if answer.as_numpy("y").tolist() != rows.tolist():
                    return "another's answer"
        return "ok"

    with ThreadPoolExecutor(CLIENTS) as threads:
        return ", ".join(sorted(set(threads.map(ask, range(CLIENTS)))))


@check()
def asynchronous_requests(door):
    rows = [np.full((1, 2), number, np.float32) for number in range(8)]
    if door.protocol == HTTP:
        asked = [door.client.async_infer("identity_fp32", one(door, row)) for row in rows]
        got = [answer.get_result().as_numpy("y").tolist() for answer in asked]
    else:
        got = list(map(_by_callback(door, rows).__getitem__, range(8)))
    return same(got, [row.tolist() for row in rows])


def _by_callback(door, rows):
    found, done = {}, threading.Semaphore(0)
    for number, row in enumerate(rows):

        def told(result, error, number=number):
            found[number] = status(error) if error else result.as_numpy("y").tolist()
            done.release()

        door.client.async_infer("identity_fp32", one(door, row), told)
    for _ in rows:
        done.acquire(timeout=10)
    return found


@check("400", http="400", grpc="INVALID_ARGUMENT")
def asynchronous_request_that_is_refused(door):
    wrong = one(door, ONE.astype(np.float64), "FP64")
    if door.protocol == HTTP:
        return refusal(door.client.async_infer("identity_fp32", wrong).get_result)
    told = queue.Queue()
    door.client.async_infer("identity_fp32", wrong, lambda result, error: told.put(error))
    return status(told.get(timeout=10))


@check()
def asyncio_client(door):
    module = tritonclient.http.aio if door.protocol == HTTP else tritonclient.grpc.aio

    async def ask():
        async with module.InferenceServerClient(door.address) as client:
            tensor = module.InferInput("x", [1, 2], "FP32")
            tensor.set_data_from_numpy(ONE)
            answers = await asyncio.gather(*(client.infer("identity_fp32", [tensor]) for _ in range(4)))
            live, about = await client.is_server_live(), await client.get_model_metadata("sum")
            name = about["name"] if door.protocol == HTTP else about.name
            return live, name, [answer.as_numpy("y").tolist() for answer in answers]

    return same(asyncio.run(ask()), (True, "sum", [ONE.tolist()] * 4))


@check("DEADLINE_EXCEEDED", over=[GRPC])
def time_limit_of_a_client(door):
    return refusal(door.client.infer, "slow", one(door), client_timeout=SLOW_SECONDS / 3)


@check("CANCELLED", over=[GRPC])
def cancelled_request(door):
    told = queue.Queue()
    call = door.client.async_infer("slow", one(door), lambda result, error: told.put(error))
    time.sleep(SLOW_SECONDS / 6)
    call.cancel()
    error = told.get(timeout=10)
    return "CANCELLED" if "CANCELLED" in str(error).upper() else str(error)


@check()
def server_after_a_client_that_left(door):
    client = door.module.InferenceServerClient(door.address)
    if door.protocol == HTTP:
        client.async_infer("slow", one(door))
    else:
        client.async_infer("slow", one(door), lambda result, error: None)
    client.close()
    return same(door.client.infer("slow", one(door)).as_numpy("y").tolist(), ONE.tolist())


class Stream:
    """The official client's stream."""

    def __init__(self, door):
        self.client = door.client
        self.told = queue.Queue()
        self.client.start_stream(lambda result, error: self.told.put((result, error)))

    def next(self):
        result, error = self.told.get(timeout=10)
        return status(error) if error else result

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.stop_stream()


@check(over=[GRPC])
def answers_of_a_stream_in_order(door):
    with Stream(door) as stream:
        for number in range(6):
            rows = np.full((1 + number % 2, 2), number, np.float32)
            stream.client.async_stream_infer("identity_fp32", one(door, rows), request_id=str(number))
        answers = [stream.next() for _ in range(6)]
    got = [(answer.get_response().id, answer.as_numpy("y")[0, 0]) for answer in answers]
    return same(got, [(str(number), number) for number in range(6)])


@check("refused, and the next is answered", over=[GRPC])
def error_in_a_stream(door):
    with Stream(door) as stream:
        stream.client.async_stream_infer("nobody", one(door))
        refused = stream.next()
        stream.client.async_stream_infer("identity_fp32", one(door))
        answered = stream.next()
    if isinstance(refused, str) and not isinstance(answered, str):
        return "refused, and the next is answered"
    return f"{refused}, {answered}"


@check("7", over=[GRPC])
def id_of_an_error_in_a_stream(door):
    message = raw_request("nobody", "FP32", [1, 2], ONE.tobytes(), id="7")
    (answer,) = door.stub.ModelStreamInfer(iter([message]))
    return answer.infer_response.id or "none"


@check(over=[GRPC])
def several_models_in_one_stream(door):
    with Stream(door) as stream:
        stream.client.async_stream_infer("identity_fp32", one(door))
        stream.client.async_stream_infer("sum", pair(door))
        first, second = stream.next(), stream.next()
    return same((first.as_numpy("y").tolist(), second.as_numpy("add").tolist()), (ONE.tolist(), [[3, 6, 9, 12]]))


@check("one answer, said to be final", over=[GRPC])
def final_flag_in_a_stream(door):
    """Of a model that gives one answer, the answer is the final one."""
    with Stream(door) as stream:
        stream.client.async_stream_infer("identity_fp32", one(door), enable_empty_final_response=True)
        answer = stream.next()
        final = answer.get_response().parameters["triton_final_response"].bool_param
    return "one answer" + (", said to be final" if final else "")


@check(over=[HTTP])
def one_connection_for_many_requests(door):
    """HTTP/1.1's keep-alive."""
    answers = [door.raw.get("/v2/health/live").status_code for _ in range(3)]
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    answers += [door.post("/v2/models/identity_fp32/infer", body).status_code for _ in range(3)]
    return same(answers, [200] * 6)


@check("200", over=[HTTP])
def chunked_request(door):
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]}'
    answer = door.raw.post("/v2/models/identity_fp32/infer", content=iter([body[:20], body[20:]]))
    return str(answer.status_code)

"""Triton's extensions: classification, shared memory, loading, settings."""

import contextlib
import secrets
import time

import numpy as np
import tritonclient.utils.shared_memory as segments
from tritonclient.grpc import service_pb2

from tests.conformance.models import CHANGING, CHANGING_WIDTH
from tests.conformance.requests import one, pair
from tests.conformance.suite import GRPC, HTTP, INVALID, NOT_OFFERED, check, refusal, refused_as, same

SCORES = np.array([[0.25, 4.0], [3.0, -1.0]], np.float32)


def _classes(door, model, inputs, count, name="y", **options):
    answer = door.client.infer(model, inputs, outputs=[door.wanted(name, class_count=count, **options)])
    return answer.as_numpy(name)


@check()
def classification(door):
    found = _classes(door, "identity_fp32", one(door, SCORES), 1)
    return same(found.tolist(), [[b"4.000000:1"], [b"3.000000:0"]])


@check(over=[HTTP])
def classification_as_json(door):
    found = _classes(door, "identity_fp32", one(door, SCORES), 1, binary_data=False)
    return same(found.tolist(), [["4.000000:1"], ["3.000000:0"]])


@check()
def more_classes_than_there_are(door):
    found = _classes(door, "identity_fp32", one(door, SCORES[:1]), 7)
    return same(found.tolist(), [[b"4.000000:1", b"0.250000:0"]])


@check()
def classification_of_integers(door):
    found = _classes(door, "sum", pair(door), 2, name="add")
    return same(found.tolist(), [[b"12:3", b"9:2"]])


@check(**INVALID)
def classification_of_fp16(door):
    inputs = one(door, SCORES.astype(np.float16), "FP16")
    return refusal(_classes, door, "identity_fp16", inputs, 1)


@check(**INVALID)
def a_negative_number_of_classes(door):
    if door.protocol == HTTP:
        given = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
        asked = {"name": "y", "parameters": {"classification": -1}}
        body = {"inputs": [given], "outputs": [asked]}
        return str(door.post("/v2/models/identity_fp32/infer", body).status_code)
    return refusal(_classes, door, "identity_fp32", one(door), -1)


class Segment:
    """A segment of shared memory, as the official client's helper makes it; registered, and forgotten again."""

    def __init__(self, door, size=64):
        self.name = f"region_{secrets.token_hex(4)}"
        self.key = f"/conformance_{secrets.token_hex(8)}"
        self.size = size
        self.client = door.client
        self.handle = segments.create_shared_memory_region(self.name, self.key, size)

    def register(self, name="", offset=0, size=0):
        self.client.register_system_shared_memory(name or self.name, self.key, size or self.size, offset=offset)

    def read(self, count, offset=0, dtype=np.float32):
        return segments.get_contents_as_numpy(self.handle, dtype, [count], offset).tolist()

    def __enter__(self):
        segments.set_shared_memory_region(self.handle, [np.arange(self.size // 4, dtype=np.float32)])
        return self

    def __exit__(self, *_):
        with contextlib.suppress(Exception):
            self.client.unregister_system_shared_memory(self.name)
        segments.destroy_shared_memory_region(self.handle)


def _shared(door, region, size=8, offset=0, shape=(1, 2)):
    made = door.module.InferInput("x", list(shape), "FP32")
    made.set_shared_memory(region, size, offset)
    return [made]


@check()
def an_input_in_shared_memory(door):
    with Segment(door) as segment:
        segment.register()
        answer = door.client.infer("identity_fp32", _shared(door, segment.name, offset=8))
        return same(answer.as_numpy("y").tolist(), [[2.0, 3.0]])


@check()
def an_output_in_shared_memory(door):
    with Segment(door) as segment:
        segment.register()
        wanted = door.wanted("y")
        wanted.set_shared_memory(segment.name, 8, 16)
        door.client.infer("identity_fp32", _shared(door, segment.name, offset=40), outputs=[wanted])
        return same(segment.read(8), [0.0, 1.0, 2.0, 3.0, 10.0, 11.0, 6.0, 7.0])


@check("its name, datatype and shape, and no data")
def what_is_said_of_an_output_in_shared_memory(door):
    with Segment(door) as segment:
        segment.register()
        wanted = door.wanted("y")
        wanted.set_shared_memory(segment.name, 8, 16)
        answer = door.client.infer("identity_fp32", one(door), outputs=[wanted])
        output = answer.get_output("y")
        said = set(output) if door.protocol == HTTP else {field.name for field, _ in output.ListFields()}
        data = [] if door.protocol == HTTP else [blob for blob in answer.get_response().raw_output_contents if blob]
        return "its name, datatype and shape, and no data" if (said, data) == (TOLD, []) else f"{said}, {data}"


TOLD = {"name", "datatype", "shape"}


@check()
def one_input_in_shared_memory_and_one_not(door):
    with Segment(door) as segment:
        segment.register()
        segments.set_shared_memory_region(segment.handle, [np.array([5, 6, 7, 8], np.int32)])
        shared = door.module.InferInput("a", [1, 4], "INT32")
        shared.set_shared_memory(segment.name, 16)
        answer = door.client.infer("sum", [shared, pair(door)[1]])
        return same(answer.as_numpy("add").tolist(), [[7, 10, 13, 16]])


for _offset in (4096, 16):

    @check(name=f"a region that begins at byte {_offset} of its segment")
    def _later(door, offset=_offset):
        with Segment(door, 1 << 15) as segment:
            segment.register(offset=offset, size=1 << 14)
            answer = door.client.infer("identity_fp32", _shared(door, segment.name, offset=8))
            return same(answer.as_numpy("y").tolist(), [[offset / 4 + 2, offset / 4 + 3]])


@check()
def status_of_a_region(door):
    with Segment(door, 8192) as segment:
        segment.register(offset=4096, size=48)
        told = {"name": segment.name, "key": segment.key, "offset": 4096, "byte_size": 48}
        return same(_status(door, segment.name), [told])


def _status(door, name=""):
    if door.protocol == HTTP:
        return door.client.get_system_shared_memory_status(name)
    found = door.client.get_system_shared_memory_status(name).regions
    return [{field: getattr(one, field) for field in ("name", "key", "offset", "byte_size")} for one in found.values()]


@check()
def regions_are_forgotten(door):
    with Segment(door) as segment:
        segment.register()
        door.client.unregister_system_shared_memory(segment.name)
        return same(_status(door), [])


@check()
def all_regions_are_forgotten(door):
    with Segment(door) as segment, Segment(door) as other:
        segment.register()
        other.register()
        registered = len(_status(door))
        door.client.unregister_system_shared_memory()
        return same((registered, _status(door)), (2, []))


@check()
def a_region_that_is_unknown_is_forgotten(door):
    return refusal(door.client.unregister_system_shared_memory, "nobody")


@check(**refused_as("404", "NOT_FOUND"))
def status_of_an_unknown_region(door):
    return refusal(door.client.get_system_shared_memory_status, "nobody")


@check(**refused_as("400", "ALREADY_EXISTS"))
def a_region_registered_twice(door):
    with Segment(door) as segment:
        segment.register()
        return refusal(segment.register)


@check(**INVALID)
def a_segment_that_is_not_there(door):
    return refusal(door.client.register_system_shared_memory, "nobody", "/conformance_nobody", 8)


@check(**INVALID)
def a_region_beyond_its_segment(door):
    with Segment(door) as segment:
        return refusal(segment.register, size=1 << 20)


@check(**INVALID)
def a_key_that_is_a_path(door):
    return refusal(door.client.register_system_shared_memory, "path", "/../etc/passwd", 8)


@check(**refused_as("404", "NOT_FOUND"))
def an_input_in_an_unknown_region(door):
    return refusal(door.client.infer, "identity_fp32", _shared(door, "nobody"))


@check(**INVALID)
def an_input_beyond_its_region(door):
    with Segment(door) as segment:
        segment.register()
        return refusal(door.client.infer, "identity_fp32", _shared(door, segment.name, offset=60))


@check(**INVALID)
def an_input_of_the_wrong_size_in_shared_memory(door):
    with Segment(door) as segment:
        segment.register()
        return refusal(door.client.infer, "identity_fp32", _shared(door, segment.name, size=12))


@check(**INVALID)
def an_output_larger_than_its_place_in_shared_memory(door):
    with Segment(door) as segment:
        segment.register()
        wanted = door.wanted("y")
        wanted.set_shared_memory(segment.name, 4)
        return refusal(door.client.infer, "identity_fp32", one(door), outputs=[wanted])


@check(**NOT_OFFERED)
def cuda_shared_memory(door):
    return refusal(door.client.get_cuda_shared_memory_status)


@check(**NOT_OFFERED)
def registering_cuda_shared_memory(door):
    return refusal(door.client.register_cuda_shared_memory, "gpu", b"AAAA", 0, 8)


def _infer_changing(door):
    rows = np.zeros((1, CHANGING_WIDTH), np.float32)
    return refusal(door.client.infer, CHANGING, [door.tensor("x", rows, "FP32")])


@check("ready, not ready, ready")
def unloaded_and_loaded(door):
    door = door.changing
    said = [_is_ready(door)]
    door.client.unload_model(CHANGING)
    said.append(_until(lambda: _is_ready(door), "not ready"))
    door.client.load_model(CHANGING)
    said.append(_is_ready(door))
    return ", ".join(said)


def _is_ready(door):
    return "ready" if door.client.is_model_ready(CHANGING) else "not ready"


def _until(look, wanted):
    """Triton's unload returns before the model is gone."""
    for _ in range(50):
        if (found := look()) == wanted:
            break
        time.sleep(0.1)
    return found


@check("UNAVAILABLE")
def index_of_an_unloaded_model(door):
    with _unloaded(door.changing) as there:
        return _until(lambda: _state(there), "UNAVAILABLE")


def _state(door):
    found = door.client.get_model_repository_index()
    rows = found if door.protocol == HTTP else [{"name": one.name, "state": one.state} for one in found.models]
    return next((one.get("state") or "none" for one in rows if one["name"] == CHANGING), "not listed")


@check(**refused_as("503", "UNAVAILABLE"))
def request_to_an_unloaded_model(door):
    with _unloaded(door.changing) as there:
        return _infer_changing(there)


@contextlib.contextmanager
def _unloaded(door):
    door.client.unload_model(CHANGING)
    try:
        _until(lambda: _is_ready(door), "not ready")
        yield door
    finally:
        door.client.load_model(CHANGING)


@check(**refused_as("404", "NOT_FOUND"))
def loading_an_unknown_model(door):
    return refusal(door.changing.client.load_model, "nobody")


@check(**refused_as("404", "NOT_FOUND"))
def unloading_an_unknown_model(door):
    return refusal(door.changing.client.unload_model, "nobody")


@check(**INVALID)
def loading_with_a_configuration_of_the_clients(door):
    return refusal(door.changing.client.load_model, CHANGING, config='{"max_batch_size": 2}')


@check(**NOT_OFFERED)
def trace_settings(door):
    return refusal(door.client.get_trace_settings)


@check(**NOT_OFFERED)
def changing_trace_settings(door):
    return refusal(door.client.update_trace_settings, settings={"trace_rate": "1000"})


@check(**NOT_OFFERED)
def log_settings(door):
    return refusal(door.client.get_log_settings)


@check(**NOT_OFFERED)
def changing_log_settings(door):
    return refusal(door.client.update_log_settings, {"log_verbose_level": 0})


@check("501", over=[HTTP])
def generate(door):
    return str(door.post("/v2/models/identity_fp32/generate", {"x": 1}).status_code)


@check("UNIMPLEMENTED", over=[GRPC])
def cuda_status_by_message(door):
    return refusal(door.stub.CudaSharedMemoryStatus, service_pb2.CudaSharedMemoryStatusRequest())


@check(**INVALID)
def classification_of_text(door):
    """The last: Triton ends, and takes long to start again."""
    return refusal(_classes, door, "identity_bytes", one(door, np.array([[b"a", b"b"]], object), "BYTES"), 1)

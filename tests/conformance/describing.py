"""What a server says of itself and its models."""

import numpy as np
from tritonclient.grpc import service_pb2

from tailorbird.domain.dtype import DType
from tests.conformance.suite import GRPC, HTTP, NOT_FOUND, check, refusal, refused_as, same


@check("True")
def live(door):
    return str(door.client.is_server_live())


@check("True")
def ready(door):
    return str(door.client.is_server_ready())


@check("True")
def model_ready(door):
    return str(door.client.is_model_ready("sum"))


@check("True")
def version_ready(door):
    return str(door.client.is_model_ready("sum", "2"))


@check("False")
def unknown_model_is_not_ready(door):
    return str(door.client.is_model_ready("nobody"))


@check("False")
def unknown_version_is_not_ready(door):
    return str(door.client.is_model_ready("sum", "9"))


@check('{"live":true} {"ready":true}', over=[HTTP])
def bodies_of_health(door):
    return " ".join(door.raw.get(f"/v2/health/{what}").text or "empty" for what in ("live", "ready"))


@check("name, version, extensions")
def server_metadata(door):
    found = door.client.get_server_metadata()
    return ", ".join(found if door.protocol == HTTP else [field.name for field, _ in found.ListFields()])


STATED = (
    *("binary_tensor_data", "classification", "model_configuration", "parameters", "schedule_policy", "statistics"),
    "system_shared_memory",
)


@check(", ".join(STATED))
def extensions(door):
    found = door.client.get_server_metadata()
    return ", ".join(sorted(found["extensions"] if door.protocol == HTTP else found.extensions))


def _json(door, call, *arguments):
    return call(*arguments) if door.protocol == HTTP else call(*arguments, as_json=True)


@check()
def model_metadata(door):
    found = _json(door, door.client.get_model_metadata, "sum")
    tensors = [(one["name"], one["datatype"], [int(dim) for dim in one["shape"]]) for one in found["inputs"]]
    wanted = [("a", "INT32", [-1, 4]), ("b", "INT32", [-1, 4])]
    outputs = [one["name"] for one in found["outputs"]]
    return same((found["name"], sorted(found["versions"]), tensors, outputs),
                ("sum", ["1", "2"], wanted, ["add", "sub"]))  # fmt: skip


for _dtype in DType:

    @check(str(_dtype), name=f"datatype in metadata, {_dtype}")
    def _datatype(door, dtype=_dtype):
        return _json(door, door.client.get_model_metadata, f"identity_{dtype.lower()}")["inputs"][0]["datatype"]


@check(**refused_as("404", "NOT_FOUND"))
def metadata_of_an_unknown_model(door):
    return refusal(door.client.get_model_metadata, "nobody")


@check(**NOT_FOUND)
def metadata_of_an_unknown_version(door):
    return refusal(door.client.get_model_metadata, "sum", "9")


@check()
def configuration(door):
    found = _json(door, door.client.get_model_config, "sum")
    found = found.get("config", found)
    inputs = [(one["name"], one["data_type"], [int(dim) for dim in one["dims"]]) for one in found["input"]]
    wanted = ("sum", 64, [("a", "TYPE_INT32", [4]), ("b", "TYPE_INT32", [4])])
    return same((found["name"], found["max_batch_size"], inputs), wanted)


@check(**NOT_FOUND)
def configuration_of_an_unknown_model(door):
    return refusal(door.client.get_model_config, "nobody")


def _counts(door, model):
    (found,) = _json(door, door.client.get_inference_statistics, model)["model_stats"]
    success = found["inference_stats"]["success"]
    return [int(found.get(name, 0)) for name in ("inference_count", "execution_count")] + [int(success.get("count", 0))]


@check("3 rows, 1 execution, 1 success")
def statistics_count(door):
    before = _counts(door, "identity_int8")
    rows = np.zeros((3, 2), np.int8)
    door.client.infer("identity_int8", [door.tensor("x", rows, "INT8")])
    rows, runs, answers = (
        after - earlier for after, earlier in zip(_counts(door, "identity_int8"), before, strict=True)
    )
    return f"{rows} rows, {runs} execution, {answers} success"


@check()
def statistics_of_all_models(door):
    found = _json(door, door.client.get_inference_statistics)["model_stats"]
    names = {(one["name"], one["version"]) for one in found}
    return same({("sum", "1"), ("sum", "2"), ("open", "1")} <= names, True)


@check("inference_stats: compute_infer, compute_input, compute_output, fail, queue, success", over=[HTTP])
def statistics_phases(door):
    (found,) = door.client.get_inference_statistics("open")["model_stats"]
    stats = sorted(set(found["inference_stats"]) - {"cache_hit", "cache_miss", "cancel"})
    return f"inference_stats: {', '.join(stats)}"


@check(**NOT_FOUND)
def statistics_of_an_unknown_model(door):
    return refusal(door.client.get_inference_statistics, "nobody")


def _index(door):
    found = _json(door, door.client.get_model_repository_index)
    return found if door.protocol == HTTP else found["models"]


@check()
def repository_index(door):
    found = {(one["name"], one.get("version"), one.get("state")) for one in _index(door)}
    return same({("sum", "1", "READY"), ("sum", "2", "READY"), ("open", "1", "READY")} <= found, True)


@check()
def repository_index_of_what_is_ready(door):
    if door.protocol == HTTP:
        found = {one["name"] for one in door.post("/v2/repository/index", {"ready": True}).json()}
    else:
        found = {one.name for one in door.stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True)).models}
    return same({"sum", "open"} <= found, True)


@check("200", over=[HTTP])
def repository_index_without_a_body(door):
    return str(door.post("/v2/repository/index").status_code)


for _path in ("/v2", "/v2/health/live", "/v2/models/sum", "/v2/models/sum/config", "/v2/models/sum/stats"):

    @check("405", name=f"POST {_path}", over=[HTTP])
    def _posted(door, path=_path):
        return str(door.post(path, {}).status_code)


for _path in ("/v2/models/sum/infer", "/v2/repository/index"):

    @check("405", name=f"GET {_path}", over=[HTTP])
    def _got(door, path=_path):
        return str(door.raw.get(path).status_code)


for _path in (
    "/v3",
    "/v2/nothing",
    "/v2/models",
    "/v2/models/sum/nothing",
    "/v2/models/sum/versions",
    "/v2/models//infer",
):

    @check("404", name=f"GET {_path}", over=[HTTP])
    def _unknown(door, path=_path):
        return str(door.raw.get(path).status_code)


@check("404", name="version that is no number, in a path", over=[HTTP])
def _version_in_path(door):
    return str(door.raw.get("/v2/models/sum/versions/x").status_code)


@check("UNIMPLEMENTED", over=[GRPC])
def unknown_method(door):
    call = door.channel.unary_unary("/inference.GRPCInferenceService/Nothing")
    return refusal(call, b"", timeout=10)


@check("SERVING", over=[GRPC])
def standard_health_service(door):
    call = door.channel.unary_unary("/grpc.health.v1.Health/Check")
    answer = refusal_or(call)
    return {b"\x08\x01": "SERVING"}.get(answer, str(answer))


def refusal_or(call):
    kept = []
    words = refusal(lambda: kept.append(call(b"", timeout=10)))
    return kept[0] if kept else words


@check(http="404", grpc="INVALID_ARGUMENT")
def readiness_of_a_model_without_a_name(door):
    if door.protocol == HTTP:
        return str(door.raw.get("/v2/models//ready").status_code)
    return refusal(door.stub.ModelReady, service_pb2.ModelReadyRequest(name=""))

"""The messages are the published ones, and the compiled file is what the .proto files say."""

import subprocess
import sys

import pytest

pytest.importorskip("google.protobuf", reason="protobuf is not installed")

from google.protobuf import descriptor_pb2

from tailorbird.service.rpc import schema
from tests.project import tree

FOLDER = tree.PACKAGE / "service" / "rpc"
SOURCES = ("open_inference.proto", "health.proto")


def compiled():
    return descriptor_pb2.FileDescriptorSet.FromString((FOLDER / schema.COMPILED).read_bytes())


def walk(messages):
    for message in messages:
        yield message
        yield from walk(message.nested_types)


def shape(field):
    """What two ends of a wire must agree on."""
    kind = field.message_type or field.enum_type
    return field.number, field.type, field.is_repeated, kind.full_name if kind else None, field.has_presence


def published():
    pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
    from tritonclient.grpc import model_config_pb2, service_pb2

    files = (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR)
    return {one.full_name: one for file in files for one in walk(file.message_types_by_name.values())}, files


def ours():
    return list(walk(schema.POOL.FindFileByName("open_inference.proto").message_types_by_name.values()))


def test_every_message_and_field_is_the_published_one():
    theirs, _ = published()
    assert len(ours()) > 40
    for message in ours():
        known = theirs[message.full_name].fields_by_name
        for field in message.fields:
            assert shape(field) == shape(known[field.name]), f"{message.full_name}.{field.name}"


def test_messages_of_requests_are_whole():
    """A field that we did not know would be skipped in silence."""
    theirs, _ = published()
    for message in ours():
        if message.full_name.startswith(("inference.ModelInfer", "inference.InferTensor", "inference.InferParameter")):
            assert {one.name for one in message.fields} == {one.name for one in theirs[message.full_name].fields}


def test_datatypes_and_operations_are_the_published_ones():
    _, (service, configuration) = published()
    known = configuration.enum_types_by_name["DataType"].values_by_name
    for name, value in schema.POOL.FindEnumTypeByName("inference.DataType").values_by_name.items():
        assert value.number == known[name].number
    for method in schema.POOL.FindServiceByName(schema.INFERENCE).methods:
        other = service.services_by_name["GRPCInferenceService"].methods_by_name[method.name]
        assert (method.input_type.full_name, method.output_type.full_name) == (
            other.input_type.full_name,
            other.output_type.full_name,
        )
        assert (method.client_streaming, method.server_streaming) == (other.client_streaming, other.server_streaming)


def test_the_compiled_file_is_fresh(tmp_path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed, so nothing can be compiled afresh")
    fresh = tmp_path / "fresh.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", "--proto_path=.", f"--descriptor_set_out={fresh}", *SOURCES]
    subprocess.run(command, cwd=FOLDER, check=True)
    assert descriptor_pb2.FileDescriptorSet.FromString(fresh.read_bytes()) == compiled(), "run `make proto`"


def test_every_name_of_the_source_is_compiled():
    """Weaker than a fresh compilation, and needs no compiler."""
    names = {message.name for file in compiled().file for message in file.message_type}
    text = "".join((FOLDER / source).read_text() for source in SOURCES)
    assert names == {line.split()[1] for line in text.splitlines() if line.startswith("message ")}


def test_the_default_pool_is_left_alone():
    """Or a program that imports the official client as well would die of names defined twice."""
    code = """
from google.protobuf import descriptor_pool
import tailorbird.service.rpc.schema
try:
    descriptor_pool.Default().FindMessageTypeByName("inference.ModelInferRequest")
except KeyError:
    print("unknown")
"""
    assert tree.run_python(code).stdout == "unknown\n"

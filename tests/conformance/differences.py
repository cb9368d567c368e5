"""Where Triton does otherwise than we hold to, each with its reason; what is not here is alike.

A difference that appears or disappears, on either side, fails the suite.
"""

from dataclasses import dataclass

from tests.conformance.suite import GRPC, HTTP


@dataclass(frozen=True)
class Difference:
    """What Triton does in some checks, and why we do not."""

    reason: str
    seen: dict[str, dict[str, str] | str]
    """By the checks' names: what Triton was seen to do, by protocol where that matters."""


def _all(seen, *names):
    return dict.fromkeys(names, seen)


DIFFERENCES = (
    Difference(
        "A request that is wrong is its client's fault, and the protocol's 400; this Triton answers 500 where its JSON "
        "parser objects",
        {
            **_all(
                {HTTP: "500"},
                *(
                    f"JSON data: {what}"
                    for what in (
                        "a fraction for an integer",
                        "text for a number",
                        "a number for text",
                        "a number for BOOL",
                        "BOOL for a number",
                        "null",
                        "less than a type holds",
                        "too few",
                        "too many",
                        "an object",
                    )
                ),
                *(f"binary data: a size that is {what}" for what in ("text", "a fraction")),
                *(
                    f"body: {what}"
                    for what in (
                        "no JSON",
                        "a list",
                        "no inputs member",
                        "inputs that are no list",
                        "an input without a name",
                        "an input without a shape",
                        "an input without a datatype",
                        "a shape that is text",
                        "a shape of fractions",
                        "an id that is a number",
                        "text behind the JSON",
                        "JSON nested 100,000 deep",
                        "bytes that are no text",
                    )
                ),
                *("binary data: a negative size", "header length amid the JSON", "negative dim"),
                *("parameter priority = -1", "parameter timeout = 'soon'", "a negative number of classes"),
            ),
            "bytes that are no message": {GRPC: "INTERNAL"},
        },
    ),
    Difference(
        "Values are taken as they are or refused, never bent to fit, and data that nobody asked for is refused",
        {
            "JSON data: more than a type holds": {HTTP: "200"},
            "JSON data nested otherwise than its shape says": {HTTP: "200"},
            "BOOL that is neither 0 nor 1, as raw bytes": {HTTP: "200", GRPC: "ok"},
            "typed contents: beyond INT8": "ok",
            "raw contents: too many tensors": "ok",
        },
    ),
    Difference(
        "JSON has no NaN and no bytes that are not UTF-8: the refusal says to ask for binary data. Triton writes both "
        "into its JSON, which few parsers then read",
        {
            "NaN asked for as JSON is refused": {HTTP: "200"},
            "bytes that are no UTF-8 asked for as JSON are refused": {HTTP: "200"},
        },
    ),
    Difference(
        "`binary_data_output` holds for every output that does not say otherwise, as the binary data extension has it; "
        "Triton forgets it where outputs are named",
        {"binary for all outputs but one": {HTTP: "all as JSON"}},
    ),
    Difference(
        "Outputs come in the order in which they are asked for; an output asked for twice is a mistake",
        {
            "outputs in the order asked for": "add, sub",
            "an output asked for twice": "ok",
        },
    ),
    Difference(
        "A request with more rows than `max_batch_size` is split into several runs",
        {"more rows than the batch size": {HTTP: "400", GRPC: "INVALID_ARGUMENT"}},
    ),
    Difference(
        "Bodies and messages have a limit, 64 MiB unless it is set otherwise; this Triton has none for HTTP, and "
        "2 GiB for gRPC",
        {"more than the server takes": "ok"},
    ),
    Difference(
        "What a model says when it fails is for the log: clients are told an identifier under which it stands there",
        {"words of a model that fails": "secret is told"},
    ),
    Difference(
        "Answers are not compressed. Most HTTP clients ask for it without meaning it, and a tensor of 600 KB of FP32 "
        "takes 28 ms of a core to become 7 % smaller. Where it pays a proxy can do it",
        {"answers to whom asks for gzip": {HTTP: "gzip"}, "answers to whom asks for deflate": {HTTP: "deflate"}},
    ),
    Difference(
        "Health is told in the protocol's own words; Triton's bodies are empty",
        {"bodies of health": {HTTP: "empty empty"}},
    ),
    Difference(
        "A name that is not there is not found, and an empty name is no name",
        {
            "statistics of an unknown model": {HTTP: "400", GRPC: "INVALID_ARGUMENT"},
            "model without a name": "NOT_FOUND",
            "readiness of a model without a name": {GRPC: "ok"},
        },
    ),
    Difference(
        "Asked for the classes of a BYTES output this Triton ends; here the request is refused",
        {"classification of text": "the server ends"},
    ),
    Difference(
        "A region of shared memory may begin at any byte of its segment, as nothing is mapped. This Triton takes "
        "offsets of whole pages, and then counts them twice: it reads and writes behind the region",
        {
            "a region that begins at byte 16 of its segment": {HTTP: "400", GRPC: "INVALID_ARGUMENT"},
            "a region that begins at byte 4096 of its segment": "[[2050.0, 2051.0]], not [[1026.0, 1027.0]]",
        },
    ),
    Difference(
        "A segment that is not there, a key that is a path, and an output that does not fit into its place in shared "
        "memory are the client's fault",
        {
            "a segment that is not there": {HTTP: "500", GRPC: "INTERNAL"},
            "a key that is a path": {HTTP: "500", GRPC: "INTERNAL"},
            "an output larger than its place in shared memory": {HTTP: "500", GRPC: "INTERNAL"},
        },
    ),
    Difference(
        "There is no CUDA shared memory: engines here run on the CPU",
        {
            "cuda shared memory": "ok",
            "cuda status by message": "ok",
            "registering cuda shared memory": {HTTP: "400", GRPC: "INVALID_ARGUMENT"},
        },
    ),
    Difference(
        "An unloaded model is still known: it is not ready, 503, where Triton does not find it. A model that the "
        "repository does not have is not found, whatever is to be done with it",
        {
            "request to an unloaded model": {HTTP: "404", GRPC: "NOT_FOUND"},
            "loading an unknown model": {HTTP: "500", GRPC: "INTERNAL"},
            "unloading an unknown model": "ok",
        },
    ),
    Difference(
        "Nothing that a client sends becomes a configuration or a file: what is served is what was signed",
        {"loading with a configuration of the clients": "ok"},
    ),
    Difference(
        "Traces and the log are set by whoever starts the server, not over the network",
        _all("ok", "trace settings", "changing trace settings", "log settings", "changing log settings"),
    ),
    Difference(
        "There is no text generation; this model is none for Triton either",
        {"generate": {HTTP: "400"}},
    ),
    Difference(
        "Only what is there for every client is stated: no sequences, no traces and no log over the network, no CUDA "
        "shared memory; models are loaded at the door for administration",
        {
            "extensions": "binary_tensor_data, classification, cuda_shared_memory, logging, model_configuration, "
            "model_repository, model_repository(unload_dependents), parameters, schedule_policy, sequence, "
            "statistics, system_shared_memory, trace"
        },
    ),
)


def expected_of_triton(one):
    """What Triton does in a check, as far as is known."""
    for difference in DIFFERENCES:
        if one.name in difference.seen:
            found = difference.seen[one.name]
            return found if isinstance(found, str) else found.get(one.protocol, one.expected)
    return one.expected

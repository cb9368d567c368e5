"""Backends and quantisers that misbehave, installed the way a stranger's would be: a distribution with entry points.

The misbehaviour is real: a signal, a sleep, memory taken, wrong numbers.
"""

from pathlib import Path

_CODE = '''
import os, signal, time
import msgspec
import numpy as np
from tailorbird.backends.onnxruntime import OnnxRuntimeBackend, OnnxRuntimeSession
from tailorbird.builder.quantise.methods import Method, QuantiseArgs, Quantised


class Plugin(OnnxRuntimeBackend):
    quantised = ()
    def _capabilities(self):
        found = super()._capabilities()
        target = msgspec.structs.replace(found.target, runtime=self.name)
        return msgspec.structs.replace(found, target=target, oracle=None, baseline=False, quantised=self.quantised)


class Segv(Plugin):
    name = "segv"
    def _compile(self, model, candidate, workdir):
        print("about to fall", flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)


class Hang(Plugin):
    name = "hang"
    def _compile(self, model, candidate, workdir):
        time.sleep(600)


class Glutton(Plugin):
    name = "glutton"
    def _compile(self, model, candidate, workdir):
        self.taken = [np.ones(1 << 24) for _ in range(64)]  # 8 GiB
        time.sleep(60)


class Raiser(Plugin):
    name = "raiser"
    def _compile(self, model, candidate, workdir):
        raise KeyError("no such kernel")


class WrongSession(OnnxRuntimeSession):
    def _run(self, inputs):
        return {name: array * np.float32(1.5) for name, array in super()._run(inputs).items()}


class Wrong(Plugin):
    name = "wrong"
    def _open(self, engine, candidate, signature):
        return WrongSession(engine, candidate, signature)


class LateSession(OnnxRuntimeSession):
    """Well behaved for the process that compiled it, and dead in the one that runs the last rounds."""
    def _run(self, inputs):
        if not (self._engine / "here").exists() or (self._engine / "here").read_text() != str(os.getpid()):
            os.kill(os.getpid(), signal.SIGABRT)
        return super()._run(inputs)


class Late(Plugin):
    name = "late"
    def _compile(self, model, candidate, workdir):
        super()._compile(model, candidate, workdir)
        (workdir / "here").write_text(str(os.getpid()))
    def _open(self, engine, candidate, signature):
        return LateSession(engine, candidate, signature)


class Static(Plugin):
    name = "static"
    quantised = ("qdq",)


class Unlucky(Plugin):
    name = "unlucky"
    quantised = ("raises", "hangs", "falls", "nan")


def quantiser(name):
    return Method(name, f"misbehaving:{name}", "onnxruntime", 1)


def raises(args: QuantiseArgs) -> Quantised:
    raise RuntimeError("no such operator")


def hangs(args: QuantiseArgs) -> Quantised:
    time.sleep(600)


def falls(args: QuantiseArgs) -> Quantised:
    os.kill(os.getpid(), signal.SIGSEGV)


def nan(args: QuantiseArgs) -> Quantised:
    import onnx
    model = onnx.load(args.model)
    for tensor in model.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array * np.float32("nan"), tensor.name))
    onnx.save(model, args.folder + "/model.onnx")
    return Quantised("model.onnx", ())


RAISES, HANGS, FALLS, NAN = map(quantiser, ("raises", "hangs", "falls", "nan"))
'''
NAMES = ("segv", "hang", "glutton", "raiser", "wrong", "late", "static", "unlucky")
QUANTISERS = ("raises", "hangs", "falls", "nan")


def install(folder: Path) -> Path:
    """Lay the distribution into a folder that then goes on the path; returns the folder."""
    folder.mkdir()
    (folder / "misbehaving.py").write_text(_CODE)
    info = folder / "misbehaving-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving\nVersion: 1.0\n")
    points = "".join(f"{name} = misbehaving:{name.capitalize()}\n" for name in NAMES)
    quantisers = "".join(f"{name} = misbehaving:{name.upper()}\n" for name in QUANTISERS)
    (info / "entry_points.txt").write_text(f"[tailorbird.backends]\n{points}[tailorbird.quantisers]\n{quantisers}")
    return folder

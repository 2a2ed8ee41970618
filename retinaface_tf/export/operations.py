"""What is an artifact made of? Its operations, size and checksum, read from the file without running it."""

import hashlib
from collections import Counter
from pathlib import Path

from retinaface_tf.common.imports import install_hint
from retinaface_tf.common.types import PathLike


def count_operations(path: PathLike, kind: str) -> dict[str, int]:
    """How often each operation occurs in the graph and its functions.

    Args:
        path: of the artifact; of a SavedModel the folder with `saved_model.pb`.
        kind: "saved_model", "tflite" or "onnx".

    Returns:
        dict name -> int, the most frequent first.
    """
    names = {"saved_model": _saved_model, "tflite": _tflite, "onnx": _onnx}[kind](Path(path))
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def measure(path: PathLike) -> tuple[int, str]:
    """(bytes, sha256) of a file, or of a folder: of its files' names and checksums, in the order of their names."""
    path = Path(path)
    if path.is_file():
        content = path.read_bytes()
        return len(content), hashlib.sha256(content).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(path).as_posix()}\n" for file in files
    ]
    return sum(file.stat().st_size for file in files), hashlib.sha256("".join(lines).encode()).hexdigest()


def _saved_model(folder):
    from tensorflow.core.protobuf import saved_model_pb2

    content = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    for graph in (meta.graph_def for meta in content.meta_graphs):
        yield from (node.op for node in graph.node)
        for function in graph.library.function:
            yield from (node.op for node in function.node_def)


def _tflite(path):
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError:
        from tensorflow.lite.python import schema_py_generated as schema
    builtin = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    for graph in model.subgraphs:
        for operator in graph.operators or ():
            code = model.operatorCodes[operator.opcodeIndex]
            # The first field held 127 operators; files keep it for old readers.
            name = builtin[max(code.builtinCode, code.deprecatedBuiltinCode)]
            yield f"CUSTOM {code.customCode.decode()}" if name == "CUSTOM" else name


def _onnx(path):
    try:
        import onnx
    except ImportError:
        raise ImportError(f"counting an ONNX file's operations needs: {install_hint('onnx')}") from None
    model = onnx.load(path, load_external_data=False)
    waiting = [model.graph, *model.functions]
    while waiting:
        for node in waiting.pop().node:
            yield node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else list(attribute.graphs)

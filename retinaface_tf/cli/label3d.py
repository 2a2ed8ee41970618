"""`retinaface-tf label3d`: add 3D vertex labels to shards."""

import argparse

from retinaface_tf.cli.options import add_overwrite, add_result, add_workers, require_positive
from retinaface_tf.cli.output import complain, exit_code_of, progress, report
from retinaface_tf.common.text import pluralize

EXAMPLES = """examples:
  npm pack mind-ar@1.2.5                                             MediaPipe's canonical face, 468 vertices
  retinaface-tf label3d shards/ --topology mind-ar-1.2.5.tgz --output shards3d/
  retinaface-tf label3d shards/ --topology mind-ar-1.2.5.tgz --output shards3d/ --pts pts/        68 points a face
  retinaface-tf label3d shards/ --topology mind-ar-1.2.5.tgz --output shards3d/ --landmarker face_landmarker.task
  retinaface-tf label3d shards/ --topology face.obj --output shards3d/ --vertices 128
  retinaface-tf label3d shards/ --topology face.obj --output shards3d/ --max-residual 0.03 --max-strain 1
  retinaface-tf label3d shards/ --topology face.obj --output shards3d/ --smooth-modes 6

docs/dense.md describes the fit. Run the same command again to resume an interrupted run.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shards", metavar="DIR", help="folder that `convert` wrote")
    parser.add_argument(
        "--topology", required=True, metavar="FILE", help=".obj file of a face, or an archive that contains one"
    )
    parser.add_argument("--vertices", type=int, metavar="N", help="number of vertices to keep; default: all")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the labeled shards")
    who = parser.add_mutually_exclusive_group()
    who.add_argument(
        "--pts",
        "--points",
        dest="points",
        metavar="DIR",
        help="folder of .pts files with 68 points, used for the photos that have one",
    )
    who.add_argument("--landmarker", metavar="FILE", help="take the vertices from MediaPipe's face_landmarker.task")
    parser.add_argument(
        "--smooth-modes", type=int, default=12, metavar="N", help="number of smooth deformations; default: %(default)s"
    )
    parser.add_argument(
        "--max-residual",
        type=float,
        default=0.04,
        metavar="R",
        help="largest landmark error, as a fraction of the face size; worse fits get no label; default: %(default)s",
    )
    parser.add_argument(
        "--max-strain",
        type=float,
        default=1.5,
        metavar="S",
        help="largest deviation from the mean face, in standard deviations; worse fits get no label; "
        "default: %(default)s",
    )
    add_workers(parser)
    add_overwrite(parser, "existing shards")
    add_result(parser)


def run(args: argparse.Namespace) -> int:
    """Label as the parsed `args` say, print what was done, and return the exit code."""
    import math

    from retinaface_tf.data.manifest import open_shards
    from retinaface_tf.dense.label3d import label_shards, residual_percentiles

    require_positive(args, "workers")
    if args.smooth_modes < 0:
        raise ValueError(f"--smooth-modes must be at least 0. Received: {args.smooth_modes}")
    photos = open_shards(args.shards)[0]["counts"]["photos"]
    provider = _provider(args)
    try:
        with progress(photos, "photo", quiet=args.quiet) as bar:
            manifest = label_shards(
                args.shards,
                args.output,
                provider,
                max_residual=args.max_residual,
                max_strain=args.max_strain,
                workers=args.workers,
                overwrite=args.overwrite,
                progress=bar.update,
            )
    except KeyboardInterrupt as interrupt:
        complain(f"interrupted; run the same command again to resume {args.output}")
        return exit_code_of(interrupt)
    counts, (half, most) = manifest["counts"], residual_percentiles(manifest)
    result = {"output": args.output, **counts, "vertices": len(provider.topology)}
    text = (
        f"{pluralize(counts['faces'], 'face')}, {counts['faces_fitted']:,} fitted, {counts['faces_with_vertices']:,} "
        f"labeled with {len(provider.topology)} vertices each, in {args.output}"
    )
    if not math.isnan(half):
        result |= {"residual_median": half, "residual_95": most}
        text += f"\n  landmark error of the fits: median {half:.1%} of the face size, 95th percentile {most:.1%}"
    report(args, result, text)
    return 0


def _provider(args):
    from retinaface_tf.dense.topology import Topology
    from retinaface_tf.dense.vertex_providers import FromLandmarks, FromPoints

    topology = Topology.load(args.topology)
    if args.landmarker:
        from retinaface_tf.dense.vertex_providers import FromFaceLandmarker

        return FromFaceLandmarker(topology, args.landmarker, args.vertices)
    if args.vertices is not None:
        topology = topology.subset(args.vertices)
    if args.points:
        return FromPoints(topology, args.points, args.smooth_modes)
    return FromLandmarks(topology, args.smooth_modes)

"""The edit of a streamed model beside the edit of the same model in memory.

For each changed matrix ‖ΔW_streamed − ΔW_in memory‖ / ‖ΔW_in memory‖, in Frobenius norms. Both read the same checkpoint
in the precision that it is kept in.

python benchmarks/streamed_parity.py FOLDER [--layers 4,8,12] [--anchors 64] [--device cpu] [--out FILE]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from results_file import result_file
from streamed_edit import anchors_of, described, fit

from lingualign.models.load import load_model
from lingualign.models.stages import load_streamed
from lingualign.runs import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", default="4,8,12")
    parser.add_argument("--anchors", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="by default a file in results/")
    options = parser.parse_args()
    layers = tuple(int(layer) for layer in options.layers.split(","))
    anchors = anchors_of(options.anchors)
    loaded = load_model(str(options.folder), device=options.device)
    precision = loaded.precision
    whole = fit(loaded, layers, anchors)
    del loaded
    streamed = fit(load_streamed(options.folder, device=options.device), layers, anchors)
    assert list(streamed.deltas) == list(whole.deltas)
    distance, norms = {}, []
    for name, delta in whole.deltas.items():
        expected = delta.dense()
        norms.append(float(expected.norm()))
        distance[name] = float((streamed.deltas[name].dense() - expected).norm()) / norms[-1]
        print(f"{name}: {distance[name]:.1e} of {norms[-1]:.3g}", flush=True)
    write_json(
        options.out or result_file("streamed-parity", options.device),
        {
            **described(options.folder, options.device, layers, options.anchors),
            "precision": precision,
            "distance": distance,
            "smallest_norm": min(norms),
        },
    )


if __name__ == "__main__":
    main()

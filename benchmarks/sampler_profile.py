"""Profile the local sampler in Python and in torch: `python benchmarks/sampler_profile.py --load demo`."""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import tempfile
import time
from pathlib import Path

import torch
from sampler_engines import Codots

from sampler import LOADS, counts, save_model


def main() -> None:
    """Print the size of a load, its number of passes and their time, and two profiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", default="demo", choices=LOADS)
    parser.add_argument("--lives", type=int, default=64, help="concurrent lives")
    parser.add_argument("--lines", type=int, default=25, help="lines of each profile")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lives = LOADS[args.load](args.lives)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        engine = Codots(folder)
    engine.replay(lives)
    forward, passes = engine.sampler.model.forward, []

    def counted(*inputs: object, **kwargs: object) -> object:
        start = time.process_time()
        output = forward(*inputs, **kwargs)
        passes.append((kwargs["input_ids"].numel(), time.process_time() - start))
        return output

    engine.sampler.model.forward = counted
    start = time.process_time()
    engine.replay(lives)
    seconds, ids, inside = time.process_time() - start, sum(n for n, _ in passes), sum(t for _, t in passes)
    engine.sampler.model.forward = forward
    print(f"{args.load}: {counts(lives)}")
    print(f"{len(passes)} passes over {ids} ids took {seconds:.3f} s, {inside:.3f} s of it inside the model")
    python = cProfile.Profile()
    python.runcall(engine.replay, lives)
    text = io.StringIO()
    pstats.Stats(python, stream=text).strip_dirs().sort_stats("tottime").print_stats(args.lines)
    print(text.getvalue())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as operators:
        engine.replay(lives)
    print(operators.key_averages().table(sort_by="self_cpu_time_total", row_limit=args.lines, max_name_column_width=40))


if __name__ == "__main__":
    main()

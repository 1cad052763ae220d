"""Where the local sampler's time goes, by Python and by torch: `python benchmarks/sampler_profile.py --load demo`."""

from __future__ import annotations

import argparse
import cProfile
import io
import pstats
import tempfile
import time
from pathlib import Path

import torch
from sampler_engines import Ours

from sampler import LOADS, counts, save_model


def main() -> None:
    """Print what a load is, how many passes it takes and how long, and two profiles of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--load", default="demo", choices=LOADS)
    parser.add_argument("--lives", type=int, default=64, help="lived at once")
    parser.add_argument("--lines", type=int, default=25, help="of each profile")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lives = LOADS[asked.load](asked.lives)
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder))
        ours = Ours(folder)
    ours.play(lives)
    forward, passes = ours.sampler.model.forward, []

    def counted(*args: object, **kwargs: object) -> object:
        start = time.process_time()
        output = forward(*args, **kwargs)
        passes.append((kwargs["input_ids"].numel(), time.process_time() - start))
        return output

    ours.sampler.model.forward = counted
    start = time.process_time()
    ours.play(lives)
    seconds, ids, inside = time.process_time() - start, sum(n for n, _ in passes), sum(t for _, t in passes)
    ours.sampler.model.forward = forward
    print(f"{asked.load}: {counts(lives)}")
    print(f"{len(passes)} passes over {ids} ids took {seconds:.3f} s, {inside:.3f} s of them inside the model")
    python = cProfile.Profile()
    python.runcall(ours.play, lives)
    said = io.StringIO()
    pstats.Stats(python, stream=said).strip_dirs().sort_stats("tottime").print_stats(asked.lines)
    print(said.getvalue())
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as operators:
        ours.play(lives)
    print(
        operators.key_averages().table(sort_by="self_cpu_time_total", row_limit=asked.lines, max_name_column_width=40)
    )


if __name__ == "__main__":
    main()

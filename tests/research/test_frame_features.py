"""What the benchmarks compare with: the same features as expressions of Polars."""

from benchmarks.bench_features import made_up_bars
from benchmarks.frame_features import comparison, in_polars
from core.config import Features
from research.catalogue import compile_chosen
from research.programs.expression import parse


def test_the_default_features_in_polars_are_ours() -> None:
    program = compile_chosen(Features().sets, {}, "200ms")
    frame = made_up_bars(program, 4_000)
    trees = zip(program.names, program.expressions, strict=True)
    theirs = frame.select(in_polars(parse(text)).alias(name) for name, text in trees).to_numpy()
    told = comparison(program.names, program.warmup_bars, program.evaluate(frame), theirs)
    assert float(told.split("largest difference ")[1].split()[0]) < 1e-6, told

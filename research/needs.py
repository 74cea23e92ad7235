"""What a run needs of the bars stage, from its configuration and what is fitted: which clocks, how many book levels."""

from dataclasses import dataclass

from core.config import Config
from research.bars.clocks import Clock, parse_clock
from research.bars.columns import deepest_level
from research.catalogue import compile_texts
from research.fitting.fitted import features_so_far


@dataclass(frozen=True)
class Needs:
    """The run's own clock, then the others, each once; `levels` of the book in every bar, 0 for none."""

    clocks: tuple[Clock, ...]
    levels: int


def needed_bars(cfg: Config) -> Needs:
    """Clocks and levels that the configuration names and that its features ask for, those fitted by now among them.

    Raises ConfigError as `choose`, StageError as `read_fitted`.
    """
    texts = features_so_far(cfg)
    clocks = compile_texts(texts, cfg.bars).clocks if texts else (cfg.bars,)
    names = dict.fromkeys((*clocks, *cfg.bars_also))
    return Needs(tuple(map(parse_clock, names)), max(cfg.bars_levels, deepest_level(texts.values())))

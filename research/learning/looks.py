"""What a training notes in the ledger: its trials, and its look at the hold-out."""

from core import schema, store
from core.config import Config
from core.units import NS_PER_MINUTE
from research.learning import dataset
from research.learning.candidates import Candidate
from research.learning.dataset import Dataset
from research.learning.ledger import Data, read_ledger, with_look, with_trials, write_ledger
from research.learning.nested import Plan
from research.learning.training import Scores


def note_look(cfg: Config, data: Dataset, made: Plan, scores: Scores, candidates: list[Candidate]) -> tuple[int, int]:
    """(k, N): this is the k-th distinct look at the hold-out, after N distinct trials on data that overlap these."""
    judged_on = ledger_data(cfg, data)
    settings = {key: sorted(score.settings.items()) for key, score in scores.items()}
    priced = cfg.bars, cfg.decision, cfg.labels, cfg.fees
    fitted = dataset.expressions(cfg, data.feature_names), cfg.train.rounds, cfg.train.max_rows, cfg.seed, priced
    trials = {
        store.hash_of(judged_on.fingerprint, fitted, settings[each.family, each.horizon_s], each)[:16]
        for each in candidates
    }
    opens, ends = (int(data.start_ns[row]) // NS_PER_MINUTE for row in (made.final.test[0], -1))
    configuration = store.hash_of(fitted, cfg.train)
    ledger, look, known = with_look(
        with_trials(read_ledger(cfg.root), judged_on, trials), judged_on, (opens, ends), configuration
    )
    write_ledger(cfg.root, ledger)
    return look, known


def ledger_data(cfg: Config, data: Dataset) -> Data:
    """What the ledger knows these data by: the captured best prices of each symbol-day."""
    events = store.partitions(cfg.root, schema.TOP_OF_BOOK, data.instruments)
    days = (f"{part.instrument} {part.date} {store.fingerprint(cfg.root, [part])}" for part in events)
    return Data(data_fingerprint(cfg, data), frozenset(days))


def data_fingerprint(cfg: Config, data: Dataset) -> str:
    """A hash of the captured best prices, which no setting of labels or features changes."""
    events = store.partitions(cfg.root, schema.TOP_OF_BOOK, data.instruments)
    return store.fingerprint(cfg.root, events)

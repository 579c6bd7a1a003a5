"""Work that processes share: each part once, all results everywhere and in order, and one error for all."""

import json

import numpy as np
import pytest

from artifacts.loading import load_pipeline
from configuration.errors import UserError
from evaluation import calibration
from evaluation.calibration import rank_and_measure
from evaluation.processes import cut_batches, map_batches
from tests.running import ROOT, finish, start_torchrun

NAMES = [f"Ada {'ab'[number % 2] * (number % 7)} Stone" for number in range(21)]
PROGRAM = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
import numpy as np
from accelerate import PartialState
state = PartialState(cpu=True)
from artifacts.loading import load_pipeline
from configuration.errors import UserError
from evaluation import calibration
from evaluation.processes import map_batches
model, out, *names = sys.argv[1:]
calibration.BATCH = 4
ranked, signals = calibration.rank_and_measure(load_pipeline(model), names, shared=True)
own = []
def work(batch):
    own.append(batch)
    if batch == 5:
        raise UserError("batch five")
    return -batch
results = map_batches(work, [0, 1, 2, 3, 4], shared=True)
try:
    map_batches(work, [3, 4, 6, 5], shared=True)
except UserError as error:
    failure = f"{{type(error).__name__}}: {{error}}"
np.save(f"{{out}}/{{state.process_index}}.npy", signals)
with open(f"{{out}}/{{state.process_index}}.json", "w") as file:
    json.dump([ranked, results, own, failure], file)
"""


def test_batches_are_cut_in_order_and_the_last_is_smaller():
    assert cut_batches([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    assert cut_batches([], 2) == []


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_no_items_is_refused_rather_than_losing_them(size):
    with pytest.raises(ValueError, match=f"size: found {size}, wanted at least 1"):
        cut_batches([1, 2, 3], size)


def test_alone_a_process_does_everything_and_its_error_is_its_own():
    assert map_batches(sum, [[1, 2], [3]], shared=True) == [3, 3]
    with pytest.raises(UserError, match="batch five"):
        map_batches(lambda batch: (_ for _ in ()).throw(UserError("batch five")), [5])


def test_two_processes_measure_as_one_does_and_fail_together(run, tmp_path, monkeypatch):
    program = tmp_path / "share.py"
    program.write_text(PROGRAM)
    result = finish(start_torchrun([str(run / "finetune"), str(tmp_path), *NAMES], program=program))
    assert result.returncode == 0, result.stderr
    monkeypatch.setattr(calibration, "BATCH", 4)
    ranked, signals = rank_and_measure(load_pipeline(run / "finetune"), NAMES)
    shares = []
    for process in range(2):
        # Not bit for bit: under a launcher MKL multiplies the last batch, of one row, in another order.
        np.testing.assert_allclose(np.load(tmp_path / f"{process}.npy"), signals, rtol=1e-5)
        found, results, own, failure = json.loads((tmp_path / f"{process}.json").read_text())
        for answers, expected in zip(found, ranked, strict=True):
            assert dict(answers) == pytest.approx(dict(expected), rel=1e-5)
        assert results == [0, -1, -2, -3, -4]
        shares.append(own)
        assert failure == ("UserError: batch five" if process else "OtherProcessError: batch five")
    assert shares == [[0, 2, 4, 3, 6], [1, 3, 4, 5]]

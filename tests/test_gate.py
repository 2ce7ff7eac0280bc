"""The regression gate: instruction counts of five fixed pieces of work (`-m gate`), and what the gate says of counts."""

from __future__ import annotations

import shutil

import pytest

from bench import gate


@pytest.mark.gate
def test_five_pieces_of_work_cost_no_more_instructions_than_recorded() -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("needs valgrind")
    before = gate.kept()
    if before is None:
        pytest.skip(f"no counts for {gate.kind()}: python bench/gate.py --record makes them")
    wrong = gate.worse(before, gate.counted())
    assert not wrong, "\n".join(wrong)


def test_a_piece_that_grew_is_named_with_both_counts() -> None:
    before = {"turns": 1_000_000, "load": 1_000}
    assert gate.worse(before, {"turns": 1_050_000, "load": 1_010}) == []
    (line,) = gate.worse(before, {"turns": 1_100_000, "load": 900})
    assert line == "turns: 1,100,000 instructions, 1,000,000 were recorded (+10.0%)"
    assert set(gate.kept() or before) <= {make.__name__ for make in gate.WORK} | set(before)

"""What the first line of an outcome says."""

from __future__ import annotations

from dataclasses import replace

from tests.report.studies import make_selection, summary


def test_a_base_above_every_parent_is_named_beside_the_gain() -> None:
    selection = make_selection(after=3)
    assert "The base alone" not in selection.headline()
    above = summary("base", "base", 0.9, ("kana_counting",))
    others = tuple(entry for entry in selection.test if entry.role != "base")
    headline = replace(selection, test=(*others, above)).headline()
    winner = next(entry for entry in others if entry.role == "winner").score.value
    assert "The base alone scores 0.900, above every parent" in headline
    assert headline.endswith(f"the winner {winner:.3f}.")

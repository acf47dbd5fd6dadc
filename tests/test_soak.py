"""A small soak, as a test; `python tests/soak.py` runs the large one."""

from soak import soak


def test_a_mirror_made_under_faults_and_kills_is_whole_with_nothing_beside_it():
    report = soak(photos=120, fault_rate=0.25, kills=3, seed=1, silent=False)
    assert report.good, f"\n{report}"
    assert report.kills == 3
    assert report.images == report.infos == 120
    assert sum(report.faults.values()) > 0.15 * report.answers, "the faults happened"

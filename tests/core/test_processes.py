"""The number of cores that a process may use."""

from codots.core import processes


def test_a_cpu_quota_limits_the_cores(monkeypatch, tmp_path):
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(processes, "QUOTA", quota)
    available = processes.cores()
    assert available >= 1
    for text, expected in (("max 100000", None), ("100000 100000", 1), ("50000 100000", 1)):
        quota.write_text(text + "\n")
        assert processes.cores() == (expected or available)

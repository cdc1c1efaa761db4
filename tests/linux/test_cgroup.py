"""What the kernel counts."""

from preforkd.linux.cgroup import OomKills, own_folder


def test_a_kill_for_want_of_memory_is_noticed_once(tmp_path):
    """The counter is compared with what it was; without one nothing is noticed."""
    events = tmp_path / "memory.events"
    assert not OomKills(tmp_path).increased()
    events.write_text("low 0\nhigh 0\nmax 4\noom 1\noom_kill 1\noom_group_kill 0\n")
    kills = OomKills(tmp_path)
    assert not kills.increased()
    events.write_text("low 0\nhigh 0\nmax 9\noom 2\noom_kill 2\noom_group_kill 0\n")
    assert kills.increased()
    assert not kills.increased()


def test_the_own_folder(tmp_path):
    """The line of version 2, wherever it stands."""
    membership = tmp_path / "cgroup"
    membership.write_text("1:name=systemd:/x\n0::/a.slice/b.service\n")
    assert own_folder(membership, tmp_path) == tmp_path / "a.slice/b.service"
    assert own_folder(tmp_path / "none", tmp_path) is None

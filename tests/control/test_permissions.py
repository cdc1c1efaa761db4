"""Who may command."""

import grp
import os
import socket

from preforkd.control.permissions import Peer, may_command, peer_of


def test_the_kernel_knows_who_connects():
    """Pid, user and groups of the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert {os.getgid(), *os.getgroups()} <= peer.groups


def test_root_our_user_and_the_group_may_command():
    """Nobody else, and a group that does not exist has no members."""
    name = grp.getgrgid(0).gr_name
    stranger = Peer(1, 65000, frozenset({65001}))
    member = Peer(1, 65000, frozenset({0}))
    assert may_command(Peer(1, 0, frozenset()), "")
    assert may_command(Peer(1, os.geteuid(), frozenset()), "")
    assert not may_command(stranger, "")
    assert not may_command(stranger, name)
    assert not may_command(stranger, "no-such-group")
    assert may_command(member, name)
    assert may_command(member, "0")
    assert not may_command(member, "")

"""Who may renew and release: lineage, descriptor, uid."""
import array
import os
import signal
import socket
import subprocess
import time

from mountlib import NOBODY, Helper, acquire, fails, in_child, say, show, take

OPTIONS = "ttl=20s"
ACQUIRE = "( set -C; : > '%s' )"


def test_subshell_then_script(m):
    """The subshell that acquired is gone: the script inherits, and so do its children."""
    p = m.path("subshell")
    with Helper() as script, Helper() as sibling:
        script.ok(ACQUIRE % p)
        sibling.refused("rm -f '%s'" % p, "not permitted")
        sibling.refused("echo renew > '%s'" % p, "not permitted")
        sibling.refused("touch '%s'" % p, "not permitted")
        sibling.refused("setfattr -n user.holdfast.ttl_ms -v 1000 '%s'" % p, "not permitted")
        script.ok("echo renew > '%s'" % p)
        script.ok("bash -c \"touch '%s'\"" % p)
        script.ok("( ( /bin/echo renew 30s > '%s' ) )" % p)
        with fails("EPERM"):  # We are its parent, but it lives.
            os.unlink(p)
        script.ok("bash -c \"rm '%s'\"" % p)


def test_acquirer_alive(m):
    """A background process holds it: its parent may not release it, its children may."""
    p = m.path("alive")
    with Helper() as script:
        script.ok("mkfifo '%s/fifo'; { exec 9<>'%s/fifo'; set -C; : > '%s'; set +C; read x <&9; bash -c \"rm '%s'\"; "
                  "echo $? > '%s/result'; } >/dev/null & while ! [ -e '%s' ]; do sleep 0.01; done" %
                  (m.base, m.base, p, p, m.base, p))
        script.refused("rm -f '%s'" % p, "not permitted")
        script.ok("echo go > '%s/fifo'; wait" % m.base)
        with open(os.path.join(m.base, "result"), encoding="utf-8") as f:
            assert f.read() == "0\n"
    with fails("ENOENT"):
        os.stat(p)


def test_whole_line_dead(m):
    """Script, and the subshell in it: both gone.  We are the next living ancestor."""
    p = m.path("line")
    subprocess.run(["bash", "-c", "bash -c \"( set -C; : > '%s' )\"; true" % p], check=True)
    with Helper(stranger=True) as stranger:
        stranger.refused("rm -f '%s'" % p, "not permitted")
    with Helper() as child:  # Our descendants inherit with us.
        child.ok("touch '%s'" % p)
    os.unlink(p)


def test_adopted_by_nobody(m):
    """The acquirer was an orphan: nobody inherits from it, least of all its reaper."""
    p = m.path("orphan")
    with Helper(stranger=True) as orphan:
        orphan.ok(": > /dev/null; " + ACQUIRE % p)
        orphan.ok("touch '%s'" % p)
    with fails("EPERM"):
        os.unlink(p)
    with Helper(stranger=True) as other:  # Adopted by the same reaper.
        other.refused("rm -f '%s'" % p, "not permitted")
    say(p, "release " + show(p)["token"])


def test_other_uid(m):
    """A descendant of the owner under another uid has no authority."""
    p = m.path("uid")
    old = os.umask(0)
    os.close(acquire(p, 0o666))
    os.umask(old)

    def other():
        with fails("EPERM"):
            fd = os.open(p, os.O_WRONLY)
            os.write(fd, b"renew")

    in_child(other, NOBODY)
    os.unlink(p)


def test_mode_bits(m):
    p = m.path("modebits")
    os.close(acquire(p, 0o600))

    def other():
        for flags in (os.O_RDONLY, os.O_WRONLY):
            with fails("EACCES"):
                os.open(p, flags)
        with fails("EACCES", "EPERM"):
            os.utime(p)
        os.stat(p)

    in_child(other, NOBODY)
    os.unlink(p)


def test_root_is_not_above(m):
    """Root may open everything, but not release others' locks (except by token)."""
    p = m.path("nobodys")

    def owner():
        take(p)

    in_child(owner, NOBODY)
    assert os.stat(p).st_uid == NOBODY
    with fails("EPERM"):
        os.unlink(p)
    with fails("EPERM"):
        say(p, "renew")
    say(p, "release " + show(p)["token"])


def test_descriptor(m):
    """Whoever got the descriptor may act, whatever its lineage."""
    p = m.path("descriptor")
    here, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:  # Acquires, hands the descriptor over, and stays alive.
        fd = acquire(p)
        there.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        signal.pause()
    _, ancillary, _, _ = here.recvmsg(1, socket.CMSG_LEN(4))
    fd = array.array("i", ancillary[0][2])[0]
    with fails("EPERM"):  # By its path: the owner lives, and is not we.
        os.unlink(p)
    os.write(fd, b"renew 33s")
    assert show(p)["ttl_ms"] == "33000"
    os.write(fd, b"release")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(fd)
    here.close()
    there.close()
    with fails("ENOENT"):
        os.stat(p)


def test_thread(m):
    """Acquired by a thread that is not the leader: it is the process that owns."""
    import threading  # pylint: disable=import-outside-toplevel
    p = m.path("thread")
    t = threading.Thread(target=take, args=(p,))
    t.start()
    t.join()
    assert show(p)["pid"] == str(os.getpid())
    os.unlink(p)


def test_old_script_after_loss(m):
    """A lease ran out: its script is told so, and can't touch its successor's lock."""
    p = m.path("old")
    with Helper() as old, Helper() as new:
        old.ok(ACQUIRE % p)
        old.ok("echo 'renew 300ms' > '%s'" % p)
        old.ok("exec 8<'%s'" % p)
        time.sleep(0.4)
        old.refused("echo renew > '%s'" % p, "Stale file handle")
        old.refused("touch '%s'" % p, "Stale file handle")
        old.refused("rm '%s'" % p, "No such file")
        new.refused("echo renew > '%s'" % p, "No such file")
        new.ok(ACQUIRE % p)
        token = show(p)["token"]
        old.refused("rm -f '%s'" % p, "not permitted")
        old.refused("echo renew > '%s'" % p, "not permitted")
        old.refused("echo release > '%s'" % p, "not permitted")
        old.refused("echo mine > '%s'" % p, "not permitted")
        old.refused("echo keep > '%s'" % p, "not permitted")
        assert show(p)["token"] == token and show(p)["note"] == ""
        new.ok("rm '%s'" % p)
        # Released by its owner: for the old script there is nothing now, and it lost one.
        old.refused("echo renew > '%s'" % p, "Stale file handle")


def test_pid_name_space(m):
    """A caller that we can't see: descriptor and token are all that it has."""
    p = m.path("namespace")
    if subprocess.run(["unshare", "--pid", "--fork", "true"], check=False, capture_output=True).returncode:
        import unittest  # pylint: disable=import-outside-toplevel
        raise unittest.SkipTest("no pid name spaces here")
    # The common case: the daemon sees into the name spaces below its own (containers).
    inside = ["unshare", "--pid", "--fork", "bash", "-c"]
    script = "( set -C; : > '%s' ) && touch '%s' && rm '%s'" % (p, p, p)
    subprocess.run(inside + ["bash -c \"$0\"; exit $?", script], check=True)
    # The first process of a container adopts all orphans in it: it inherits nothing.
    status = subprocess.run(inside + ["%s; rm -f '%s'; exit $?" % (ACQUIRE % p, p)], check=False,
                            capture_output=True, text=True)
    assert status.returncode != 0 and "not permitted" in status.stderr
    with fails("EPERM"):
        os.unlink(p)
    say(p, "release " + show(p)["token"])
    # But what it acquired itself is its own.
    subprocess.run(inside + ["set -C; : > '%s'; set +C; touch '%s' && rm '%s'; exit $?" % (p, p, p)], check=True)

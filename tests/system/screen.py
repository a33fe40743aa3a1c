#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""sparqctl top in a terminal: what stands on its screen, as a terminal would show it.

    screen.py SPARQCTL BYTES-PER-STEP USER
    screen.py SPARQCTL away         prints "up", "away" when the daemon is gone, "back"

The daemon is at work on sequences s0, s1, ... Each figure of the screen is compared with the others
and with what a step reads, so it does not matter how fast the machine is.
"""
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

import pyte

UNITS = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


class Terminal:
    def __init__(self, argv, columns, lines, **environment):
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            time.sleep(0.2)  # until the terminal has its size
            os.environ.update(environment)
            os.execv(argv[0], argv)
        self.size(columns, lines)

    def size(self, columns, lines):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self, what, condition, seconds=20):
        """The text of the screen, when it is as wanted."""
        until = time.monotonic() + seconds
        while not condition(self.text()):
            if time.monotonic() > until:
                sys.exit(f"{what}: not within {seconds} s; on the screen:\n{self.text()}")
            if select.select([self.fd], [], [], 0.1)[0]:
                self.stream.feed(os.read(self.fd, 65536))
        return self.text()

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def end(self):
        """Its exit status, after q."""
        self.type("q")
        while True:
            try:
                if not os.read(self.fd, 65536):
                    break
            except OSError:  # the other end is closed
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def bandwidth(number, unit):
    return float(number) * UNITS[unit]


def near(what, a, b, part=0.06):
    """Both were rounded to three digits, or to whole steps."""
    if abs(a - b) > part * max(a, b):
        sys.exit(f"{what}: {a} and {b}")


ROW = r"^{} +(\S+) +(\d+) +([\d.]+) (\w+) +([\d.]+) (\w+)/s +(\d+) +([-\d.]+)%"


def check_figures(text, per_step, user):
    total = re.search(r"(\d+) steps/s  read ([\d.]+) (\w+)/s", text)
    node = re.search(r"^node 0 +([\d.]+) (\w+)/s", text, re.M)
    row = re.search(rf"^{user} +(\d+) +(\d+) +([\d.]+) (\w+) +([\d.]+) (\w+)/s +(\d+)", text, re.M)
    sequence = re.search(ROW.format(r"s\d+"), text, re.M)
    if not (total and node and row and sequence):
        sys.exit(f"figures are missing:\n{text}")
    steps, read = int(total[1]), bandwidth(total[2], total[3])
    near("bytes of all steps", read, steps * per_step)
    near("the node and all", bandwidth(node[1], node[2]), read)
    near("the user and all", bandwidth(row[5], row[6]), read)
    near("the user's steps", int(row[7]), steps)
    # Ten steps or so: a whole one more or less is a tenth.
    near("a sequence's bytes", bandwidth(sequence[5], sequence[6]), int(sequence[7]) * per_step, 0.2)


def working(text):
    """Rates are there; the last line is drawn last, so what is above it is of the same look."""
    found = re.search(r"(\d+) steps/s", text)
    return bool(found) and int(found[1]) > 0 and "q end" in text and "second look" not in text


def watch_it_go(ctl):
    t = Terminal([ctl, "top", "--interval", "0.5"], 80, 24, TERM="linux")
    t.wait("figures", working)
    print("up", flush=True)
    t.wait("away", lambda s: "trying again" in s.split("\n")[-1])
    print("away", flush=True)
    t.wait("back", working)
    print("back", flush=True)
    return t.end()


def main():
    if sys.argv[2] == "away":
        return watch_it_go(sys.argv[1])
    ctl, per_step, user = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    argv = [ctl, "top", "--interval", "1"]
    t = Terminal(argv, 80, 24, TERM="linux")
    text = t.wait("figures", working)
    check_figures(text, per_step, user)
    lines = text.split("\n")
    if "q end" not in lines[23] or not lines[22].startswith("s"):
        sys.exit(f"80x24 is not filled:\n{text}")
    t.type("h")
    t.wait("help", lambda s: "by steps in a second" in s and "steps/s" not in s)
    t.type("h")
    t.type("n")
    t.wait("order by name", lambda s: "order: name" in s and "\ns0 " in s)
    t.type("p")
    t.wait("pause", lambda s: "p go on" in s)
    t.type("p")
    t.size(120, 40)
    text = t.wait("larger", lambda s: "q end" in s.split("\n")[-1] and len(s.split("\n")) == 40)
    if not text.split("\n")[38].startswith("s"):
        sys.exit(f"120x40 is not filled:\n{text}")
    t.size(40, 6)
    t.wait("smaller", lambda s: "q end" in s.split("\n")[5] and s.startswith("sparqd"))
    status = t.end()
    if status != 0:
        sys.exit(f"q ended it with status {status}")
    # No colour, and nothing that moves the cursor about in colour, where there is none.
    t = Terminal(argv, 80, 24, TERM="vt100")
    t.wait("without colour", working)
    if any(c.fg != "default" for line in t.screen.buffer.values() for c in line.values()):
        sys.exit("colours on a terminal without")
    return t.end()


if __name__ == "__main__":
    sys.exit(main())

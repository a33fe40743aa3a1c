#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a shell makes of a line when Tab is pressed: the shell runs in a terminal of its own, the
line and the key are typed, and the words that are there then are printed, one a line.

    complete.py bash|zsh COMPLETION LINE
"""
import os
import pty
import select
import sys
import time

# What makes each ready: no files of the user's, the completion, a prompt that cannot be mistaken.
BEGIN = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
SETUP = {
    "bash": "bind 'set enable-bracketed-paste off' 'set bell-style audible'; source {file}\n",
    "zsh": "setopt beep; bindkey -e; fpath=({folder} $fpath); autoload -U compinit; "
           "compinit -u -D; compdef _sparqctl sparqctl\n",
}


class Terminal:
    def __init__(self, argv):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="dumb", PS1="@> ", PROMPT_COMMAND="")
            os.execvp(argv[0], argv)
        self.got = ""

    def type(self, text):
        os.write(self.fd, text.encode())

    def read_until(self, wanted, seconds=10):
        until = time.monotonic() + seconds
        while wanted not in self.got:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.fd], [], [], left)[0]:
                sys.exit(f"no {wanted!r} within {seconds} s; there was: {self.got!r}")
            self.got += os.read(self.fd, 4096).decode(errors="replace")
        before, self.got = self.got.split(wanted, 1)
        return before

    def settle(self):
        """Waits for the answer to what was typed, a bell at the least, and for its end: a shell
        that sees more typed meanwhile does not complete."""
        seconds = 10
        while select.select([self.fd], [], [], seconds)[0]:
            self.got += os.read(self.fd, 4096).decode(errors="replace")
            seconds = 0.4

    def close(self):
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def complete(shell, file, line):
    t = Terminal(BEGIN[shell])
    t.type(SETUP[shell].format(file=file, folder=os.path.dirname(file)))
    # Words are typed in two parts, so that what the terminal echoes is not taken for the answer.
    t.type("echo rea''dy\n")
    t.read_until("ready\r\n")
    t.read_until("@> ")
    t.type(line)
    t.settle()
    t.type("\t")
    t.settle()
    t.type("\x01printf '%s\\n' be''gin \x05 e''nd\n")
    t.read_until("begin\r\n")
    words = t.read_until("end\r\n").split("\r\n")
    t.type("exit\n")
    t.close()
    return words[:-1]


if __name__ == "__main__":
    print("\n".join(complete(*sys.argv[1:])))

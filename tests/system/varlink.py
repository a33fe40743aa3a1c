#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks a varlink service what it has, calls every method of it, and looks whether each answer is
what the description promises: all members that must be there, each of its type, and no error that
is not declared.

    varlink.py SOCKET [METHOD=JSON]...

A method is called with the JSON if it is named, else without parameters. One that must succeed is
named; one that is not may refuse. Prints a line a method. Exit status 1: something is not as said.
"""
import json
import re
import socket
import sys

SERVICE = "org.varlink.service"
PLAIN = {"bool": bool, "int": int, "float": (int, float), "string": str, "object": dict}


class Service:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)

    def call(self, method, parameters=None):
        message = {"method": method, "parameters": parameters or {}}
        self.socket.sendall(json.dumps(message).encode() + b"\0")
        got = b""
        while not got.endswith(b"\0"):
            piece = self.socket.recv(65536)
            if not piece:
                sys.exit(f"{method}: the connection was closed")
            got += piece
        return json.loads(got[:-1])


class Description:
    """interface, type, method and error of a description, by recursive descent."""

    def __init__(self, text):
        text = re.sub(r"#.*", "", text)
        self.tokens = re.findall(r"->|\[string\]|\[\]|[A-Za-z_][\w.-]*|[?(),:]", text)
        self.types, self.methods, self.errors = {}, {}, {}
        self.take("interface")
        self.name = self.tokens.pop(0)
        while self.tokens:
            kind, name = self.tokens.pop(0), self.tokens.pop(0)
            if kind == "type":
                self.types[name] = self.type()
            elif kind == "method":
                given = self.type()
                self.take("->")
                self.methods[name] = (given, self.type())
            elif kind == "error":
                self.errors[name] = self.type()
            else:
                sys.exit(f"{kind} {name}: no member of an interface")

    def take(self, wanted):
        got = self.tokens.pop(0)
        if got != wanted:
            sys.exit(f"{wanted} is expected, not {got}: {self.tokens[:8]}")

    def type(self):
        token = self.tokens.pop(0)
        if token in ("?", "[]", "[string]"):
            return (token, self.type())
        if token != "(":
            return token
        members, words = {}, []
        while self.tokens[0] != ")":
            name = self.tokens.pop(0)
            if self.tokens[0] == ":":
                self.tokens.pop(0)
                members[name] = self.type()
            else:
                words.append(name)
            if self.tokens[0] == ",":
                self.tokens.pop(0)
        self.tokens.pop(0)
        return frozenset(words) if words else members

    def check(self, kind, value, where):
        """What is wrong with a value, as lines."""
        if isinstance(kind, tuple):
            token, inner = kind
            if token == "?":
                return self.check(inner, value, where) if value is not None else []
            if not isinstance(value, list if token == "[]" else dict):
                return [f"{where} is no {token}"]
            items = value if token == "[]" else value.values()
            return [line for v in items for line in self.check(inner, v, where + token)]
        if isinstance(kind, frozenset):
            return [] if value in kind else [f"{where} is none of {sorted(kind)}: {value!r}"]
        if isinstance(kind, dict):
            if not isinstance(value, dict):
                return [f"{where} is no object"]
            wrong = [f"{where}.{k} is not there" for k, t in kind.items()
                     if k not in value and not (isinstance(t, tuple) and t[0] == "?")]
            wrong += [f"{where}.{k} is not in the description" for k in value if k not in kind]
            for k in kind.keys() & value.keys():
                wrong += self.check(kind[k], value[k], f"{where}.{k}")
            return wrong
        if kind in PLAIN:
            right = isinstance(value, PLAIN[kind]) and (kind == "bool") == isinstance(value, bool)
            return [] if right else [f"{where} is no {kind}: {value!r}"]
        if kind not in self.types:
            return [f"{where}: there is no type {kind}"]
        return self.check(self.types[kind], value, where)


def try_method(service, d, known, name, arguments):
    reply = service.call(f"{d.name}.{name}", arguments)
    error = reply.get("error")
    if error is None:
        return d.check(d.methods[name][1], reply["parameters"], name)
    if arguments is not None:
        return [f"{name}: {error} {reply['parameters']}"]
    interface, _, short = error.rpartition(".")
    if interface not in known or short not in known[interface].errors:
        return [f"{name}: {error} is declared nowhere"]
    return known[interface].check(known[interface].errors[short], reply["parameters"], short)


def main():
    service = Service(sys.argv[1])
    given = {k: json.loads(v) for k, v in (a.split("=", 1) for a in sys.argv[2:])}
    names = service.call(SERVICE + ".GetInfo")["parameters"]["interfaces"]
    known = {}
    for name in names:
        reply = service.call(SERVICE + ".GetInterfaceDescription", {"interface": name})
        known[name] = Description(reply["parameters"]["description"])
        if known[name].name != name:
            sys.exit(f"{name} describes itself as {known[name].name}")
    wrong = []
    for d in known.values():
        for name in d.methods:
            lines = try_method(service, d, known, name, given.pop(name, None))
            print(f"{d.name}.{name}: {'WRONG' if lines else 'as described'}")
            wrong += lines
    wrong += [f"{name}: there is no such method" for name in given]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

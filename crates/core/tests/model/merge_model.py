#!/usr/bin/env python3
"""Executable statement of the merge rules of docs/PROTOCOL.md for one key, with a random check that they converge.

run: python3 tests/model/merge_model.py 20000       (number of random histories; prints the first failures and their seed)

A state is a dict:
  horizon (stamp, void)   newest reset; void=1: nothing of the reset itself is left (delete, or voided by a type conflict)
  value                   scalar of the reset at the horizon, or None
  seen {(node, base): sum}        what the author of that reset had seen of the counter entries
  adds {(node, base): (last, sum)} counter entries; base is the horizon the node saw while adding
  items {id: (value, removed_at or None)}      members {member: (stamp, present)}
A command is a small state; applying it is join(). Stamps are integers. An author that errs gives one to two commands
(twin()): of two contents under one stamp the larger counts, in whatever order contents have.
"""
import random
import sys

START = (0, 1)


def empty():
    return dict(horizon=START, value=None, seen={}, adds={}, items={}, members={})


def newest(item_id, removed_at):
    return max(item_id, removed_at or 0)


def normalise(s):
    """Drop what the horizon covers; if several types are left, the newest wins and the horizon rises over the others."""
    while True:
        horizon, stamp = s["horizon"], s["horizon"][0]
        # Of a removed item the value is gone.
        s["items"] = {i: ("" if r[1] else r[0], r[1]) for i, r in s["items"].items() if newest(i, r[1]) > stamp}
        s["members"] = {m: t for m, t in s["members"].items() if t[0] > stamp}
        s["adds"] = {k: v for k, v in s["adds"].items() if k[1] >= horizon or v[0] > stamp}
        if horizon[1]:
            s["value"] = None
        types = {}
        if s["value"] is not None:
            types["scalar"] = stamp
        if s["adds"]:
            types["scalar"] = max([types.get("scalar", 0)] + [last for last, _ in s["adds"].values()])
        if s["items"]:
            types["list"] = max(newest(i, r[1]) for i, r in s["items"].items())
        if s["members"]:
            types["set"] = max(t[0] for t in s["members"].values())
        if len(types) < 2:
            return s
        winner = max(types, key=types.get)
        loser = max(v for k, v in types.items() if k != winner)
        if (loser, 1) > horizon:
            s["horizon"], s["seen"] = (loser, 1), {}


def content(s):
    return (s["value"] is not None, s["value"] or 0, sorted(s["seen"].items()))


def join(a, b):
    # Beside elements nothing of a reset is kept but its horizon: what it had seen must not decide either.
    rank = lambda s: (s["horizon"], content(s))
    top = a if rank(a) >= rank(b) else b
    s = dict(empty(), horizon=top["horizon"], value=top["value"], seen=dict(top["seen"]))
    for x in (a, b):
        for k, v in x["adds"].items():
            if k not in s["adds"] or v > s["adds"][k]:
                s["adds"][k] = v
        for i, (v, removed) in x["items"].items():
            known, other = s["items"].get(i, (v, None))
            s["items"][i] = (max(known, v), max(removed or 0, other or 0) or None)
        for m, t in x["members"].items():
            if m not in s["members"] or t > s["members"][m]:
                s["members"][m] = t
    return normalise(s)


def visible_type(s):
    stamp = s["horizon"][0]
    if any(i > stamp and not r[1] for i, r in s["items"].items()):
        return "list"
    if any(present for _, present in s["members"].values()):
        return "set"
    return "scalar" if s["value"] is not None or s["adds"] else None


def integer(s):
    total = s["value"] or 0
    for (node, base), (last, added) in s["adds"].items():
        if base == s["horizon"]:
            total += added
        elif base < s["horizon"] and last > s["horizon"][0]:
            total += added - s["seen"].get((node, base), 0)
    return total


def canonical(s):
    return repr((s["horizon"], s["value"], *(sorted(s[k].items()) for k in ("seen", "adds", "items", "members"))))


def local(rng, s, t, node):
    """One operation as `node` would do it on the state it sees; the command, or None where it is an error."""
    d, kind = empty(), visible_type(s)
    op = rng.choice(["set", "del", "add", "add", "push", "remove", "sadd", "sdel"])
    seen = {k: v[1] for k, v in s["adds"].items()}
    if op == "set":
        d.update(horizon=(t, 0), value=rng.randint(1, 9) * 100, seen=seen)
    elif op == "del":
        d.update(horizon=(t, 1), seen=seen)
    elif op == "add" and kind in (None, "scalar"):
        amount, key = rng.randint(1, 9), (node, s["horizon"])
        d["adds"] = {key: (t, s["adds"].get(key, (0, 0))[1] + amount)}
        return d, amount
    elif op == "push" and kind in (None, "list"):
        d["items"] = {t: (f"v{t}", None)}
    elif op == "remove" and kind == "list":
        i = rng.choice([i for i, r in s["items"].items() if i > s["horizon"][0] and not r[1]])
        d["items"] = {i: (s["items"][i][0], t)}
    elif op == "sadd" and kind in (None, "set"):
        d["members"] = {rng.choice("ab"): (t, True)}
    elif op == "sdel" and kind == "set":
        d["members"] = {rng.choice(sorted(s["members"])): (t, False)}
    else:
        return None, 0
    return d, 0


def newest_stamp(s):
    """The newest stamp of anything that the key holds, removals included."""
    stamps = [last for last, _ in s["adds"].values()] + [newest(i, r[1]) for i, r in s["items"].items()]
    return max([s["horizon"][0]] + stamps + [t for t, _ in s["members"].values()])


def shows(before, after, command, amount):
    """Whether whoever has just written sees that."""
    if command["adds"]:
        return integer(after) == integer(before) + amount
    if command["items"]:
        return all(after["items"].get(i) == ("" if r[1] else r[0], r[1]) for i, r in command["items"].items())
    if command["members"]:
        return all(after["members"].get(m) == t for m, t in command["members"].items())
    return after["horizon"] == command["horizon"] and after["value"] == command["value"]


def twin(rng, command):
    """The command of an author that gives its stamp away once more, to another content."""
    d = {k: dict(v) if isinstance(v, dict) else v for k, v in command.items()}
    if d["value"] is not None:
        d["value"] += rng.randint(-9, 9)
    d["seen"] = {k: v + rng.randint(-1, 1) for k, v in d["seen"].items()}
    d["adds"] = {k: (t, total + rng.randint(0, 9)) for k, (t, total) in d["adds"].items()}
    d["items"] = {i: (v if removed else v + rng.choice("xy"), removed) for i, (v, removed) in d["items"].items()}
    d["members"] = {m: (t, rng.random() < 0.5) for m, (t, _) in d["members"].items()}
    return d


def history(seed):
    rng = random.Random(seed)
    nodes, commands, adds, clock = [empty() for _ in range(rng.randint(2, 4))], [], [], 0
    ahead = [0] * len(nodes)  # wall clocks jump ahead and back
    for _ in range(rng.randint(3, 14)):
        n = rng.randrange(len(nodes))
        if rng.random() < 0.1:
            ahead[n] = rng.choice([0, 0, 5, 100])
        if commands and rng.random() < 0.45:  # some old command arrives, perhaps again
            nodes[n] = join(nodes[n], rng.choice(commands))
            continue
        clock += 1
        # The clock, or above all that the key holds: so stamps are unique, and a write is never older than what it saw.
        t = max(clock + ahead[n], newest_stamp(nodes[n]) // 10 + 1) * 10 + n
        command, amount = local(rng, nodes[n], t, n)
        if command:
            commands.append(command)
            adds.append((t, amount))
            before = nodes[n]
            nodes[n] = join(nodes[n], command)
            if not shows(before, nodes[n], command, amount):
                return "a write has no effect where it was made", command, canonical(before)
    if len({t for t, _ in adds}) < len(adds):
        return "one stamp for two writes", adds
    if seed % 2:
        commands += [twin(rng, rng.choice(commands)) for _ in range(rng.randint(1, 4)) if commands]
    ends = set()
    for _ in range(6):  # any order, with repeats
        order = commands * rng.choice([1, 2])
        rng.shuffle(order)
        s = empty()
        for c in order:
            s = join(s, c)
        ends.add(canonical(s))
    parts = [empty(), empty(), empty()]
    for c in commands:  # any grouping
        j = rng.randrange(3)
        parts[j] = join(parts[j], c)
    ends |= {canonical(join(parts[0], join(parts[1], parts[2]))), canonical(join(join(parts[2], parts[0]), parts[1]))}
    if len(ends) != 1:
        return "diverged", commands, ends
    if seed % 2 == 0 and visible_type(s) == "scalar":  # no increment stamped after the horizon is lost
        owed = sum(a for t, a in adds if t > s["horizon"][0])
        if integer(s) - (s["value"] or 0) < owed:
            return "lost increments", commands, canonical(s)
    return None


if __name__ == "__main__":
    failures = 0
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    for seed in range(runs):
        found = history(seed)
        if found:
            failures += 1
            if failures <= 3:
                print("seed", seed, *found, sep="\n  ")
    print(f"{runs} histories, {failures} failures")
    sys.exit(bool(failures))

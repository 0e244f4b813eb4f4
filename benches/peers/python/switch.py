"""The Python peer: greenlet. `switch.py FIGURE ITERATIONS` prints nanoseconds."""

import random
import sys
import time

from greenlet import getcurrent, greenlet


def status():
    """Bytes resident and in page tables, and mappings."""
    with open("/proc/self/status") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    with open("/proc/self/maps") as lines:
        mappings = sum(1 for _ in lines)
    kib = sum(int(fields[name].split()[0]) for name in ("VmRSS", "VmPTE"))
    return kib * 1024, mappings


def below(depth, main, value):
    return main.switch(value) if depth <= 1 else below(depth - 1, main, value)


def echo(depth):
    main = getcurrent()

    def flat(value):
        while True:
            value = main.switch(value)

    def deep(value):
        while True:
            value = below(depth, main, value)

    return greenlet(deep if depth else flat)


def touching(main):
    def run(value):
        frame = [0] * 32
        while True:
            frame[value % 32] += value
            value = main.switch(value)

    return greenlet(run)


def timed(members, iterations):
    for member in members:
        member.switch(0)
    start = time.perf_counter_ns()
    for value in range(iterations):
        for member in members:
            member.switch(value)
    return time.perf_counter_ns() - start


def spawn_join(count, iterations):
    start = time.perf_counter_ns()
    for _ in range(iterations):
        for made in [greenlet(lambda value: value) for _ in range(count)]:
            made.switch(0)
    return time.perf_counter_ns() - start


def main():
    kind, detail = sys.argv[1].split(".")
    iterations = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    depths = {"flat": 0, "machine": 0, "depth2": 2, "depth8": 8}
    if kind == "switch":
        print(timed([echo(depths[detail])], iterations))
    elif kind in ("ring", "ring_shuffled"):
        members = [touching(getcurrent()) for _ in range(int(detail))]
        if kind == "ring_shuffled":
            random.Random(1).shuffle(members)
        print(timed(members, iterations))
    elif kind == "spawn_join":
        count = 1 if detail == "one" else int(detail.removeprefix("batch"))
        print(spawn_join(count, iterations))
    elif kind == "parked_bytes":
        count, before = int(detail), status()
        members = [touching(getcurrent()) for _ in range(count)]
        for member in members:
            member.switch(0)
        print(*(after - was for after, was in zip(status(), before)))
    else:
        sys.exit("does not do this figure")


main()

"""How lines reach a file: consoles, dmesg in its formats, journal and syslog, mail. None of it changes what they say."""

from collections.abc import Callable, Sequence
from random import Random

Wrap = Callable[[int, str], str]


def _seconds(at: int) -> str:
    return f"{at * 13 // 1000:5d}.{at * 13 % 1000:03d}{at % 1000:03d}"


ENVELOPES: dict[str, Wrap] = {
    "bare": lambda at, line: line,
    "dmesg": lambda at, line: f"[{_seconds(at)}] {line}",
    "caller": lambda at, line: f"[{_seconds(at)}][ T3469] {line}",
    "raw": lambda at, line: f"<4>[{_seconds(at)}] {line}",
    "human": lambda at, line: f"[Tue Dec  1 04:{at // 60 % 60:02d}:{at % 60:02d} 2026] {line}",
    "journal": lambda at, line: f"Dec 01 04:{at // 60 % 60:02d}:{at % 60:02d} host kernel: {line}",
    "iso": lambda at, line: f"2026-12-01T04:{at // 60 % 60:02d}:{at % 60:02d}.{at:06d}+00:00 host kernel: {line}",
    "syslog": lambda at, line: f"Dec  1 04:{at // 60 % 60:02d}:{at % 60:02d} host kernel: [{_seconds(at)}] {line}",
    "quoted": lambda at, line: f"> [{_seconds(at)}] {line}",
    "indented": lambda at, line: f"    [{_seconds(at)}] {line}",
}
LATER = 7700
"""How long after its start a kernel prints what does not begin with it, in lines."""
NOISE = (
    "usb 1-1: new high-speed USB device number 4 using xhci_hcd",
    "EXT4-fs (nvme0n1p2): mounted filesystem with ordered data mode",
    'audit: type=1400 audit(1700000000.123:45): apparmor="STATUS" operation="profile_load"',
    "br0: port 2(tap0) entered forwarding state",
    "perf: interrupt took too long (2507 > 2500), lowering kernel.perf_event_max_sample_rate to 79000",
)


def wrapped(rng: Random, lines: Sequence[str], *, name: str | None = None) -> list[str]:
    """The lines in some envelope, perhaps with lines of others before and after them."""
    before = rng.sample(NOISE, rng.randrange(3))
    after = rng.sample(NOISE, rng.randrange(3))
    whole = [*(before if not lines[0].startswith("Linux version") else ()), *lines, *after]
    wrap = ENVELOPES[name or rng.choice(list(ENVELOPES))]
    first = 0 if lines[0].startswith("Linux version") else LATER
    return [wrap(number, line) for number, line in enumerate(whole, first)]

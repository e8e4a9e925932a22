"""A strict reader of Prometheus' text format (0.0.4), as far as Holdfast uses it.

parse(text) -> {family: Family}; raises ValueError for whatever a scraper might refuse, and for
habits of naming that are not kept.
"""
import math
import re

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
NUMBER = re.compile(r"(?:[+-]?(?:\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|[+-]?Inf|NaN)\Z")
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}


class Family:
    def __init__(self, name, text):
        self.name = name
        self.help = text
        self.type = None
        self.samples = {}  # (suffix, ((label, value), ...)) -> number

    def value(self, suffix="", **labels):
        """Of one sample; 0 when it is not there."""
        return self.samples.get((suffix, tuple(sorted(labels.items()))), 0)

    def total(self, **labels):
        """Of all samples that have these labels."""
        return sum(v for (_, have), v in self.samples.items() if set(labels.items()) <= set(have))


def require(condition, line, sentence):
    if not condition:
        raise ValueError(f"{sentence}: {line!r}")


def labels_of(text, line):
    """The labels between the braces."""
    found, at = {}, 0
    while at < len(text):
        m = re.compile(r'([^=]+)="((?:[^"\\\n]|\\["\\n])*)"(,|\Z)').match(text, at)
        require(m, line, "bad labels")
        name, value = m.group(1), m.group(2)
        require(LABEL.match(name) and not name.startswith("__"), line, "bad label name")
        require(name not in found, line, "label twice")
        found[name] = re.sub(r"\\(.)", lambda e: {"n": "\n"}.get(e.group(1), e.group(1)), value)
        at = m.end()
        require(m.group(3) or at == len(text), line, "bad labels")
    return found


def sample(line, family):
    m = re.match(r"([a-zA-Z0-9_:]+)(?:\{(.*)\})? (\S+)\Z", line)
    require(m, line, "not a sample")
    name, labels, number = m.groups()
    require(family and family.type, line, "a sample without its TYPE before it")
    require(name.startswith(family.name), line, "a sample of another family")
    suffix = name[len(family.name):]
    require(suffix in SUFFIXES[family.type], line, "a sample of another family")
    require(NUMBER.match(number), line, "not a number")
    require(labels != "", line, "empty braces")
    key = (suffix, tuple(sorted(labels_of(labels or "", line).items())))
    require(key not in family.samples, line, "the same sample twice")
    value = float(number)
    require(math.isfinite(value) and value >= 0, line, "not a sensible value")
    family.samples[key] = value


def check_histogram(f):
    series = {}
    for (suffix, labels), value in f.samples.items():
        rest = tuple(l for l in labels if l[0] != "le")
        series.setdefault(rest, {"buckets": []})
        if suffix == "_bucket":
            series[rest]["buckets"].append((float(dict(labels)["le"].replace("+Inf", "inf")), value))
        else:
            series[rest][suffix] = value
    for labels, s in series.items():
        bounds = [b for b, _ in s["buckets"]]
        counts = [c for _, c in s["buckets"]]
        require(bounds == sorted(set(bounds)) and bounds[-1] == math.inf, labels, "bad bounds")
        require(counts == sorted(counts), labels, "buckets are not cumulative")
        require(counts[-1] == s["_count"] and "_sum" in s, labels, "sum or count is wrong")


def check_names(f):
    require(NAME.match(f.name), f.name, "bad name")
    require(f.help, f.name, "no help")
    require(f.samples, f.name, "no samples")
    require((f.type == "counter") == f.name.endswith("_total"), f.name, "_total is for counters")
    require(not re.search(r"_(ms|us|ns|millis|micros|kb|mb)(_|\Z)", f.name), f.name,
            "not a base unit")
    for _, labels in f.samples:
        keys = [k for k, _ in labels]
        require(f.type == "histogram" or "le" not in keys, f.name, "'le' is for histograms")
    if f.type == "histogram":
        check_histogram(f)


def parse(text):
    families, family = {}, None
    require(text.endswith("\n"), text[-80:], "the last line does not end")
    for line in text[:-1].split("\n"):
        require(line == line.strip() and line, line, "blanks")
        m = re.match(r"# (HELP|TYPE) (\S+) (.*)\Z", line)
        if m and m.group(1) == "HELP":
            require(m.group(2) not in families, line, "a family twice")
            require(family is None or family.type, line, "HELP without TYPE")
            family = families[m.group(2)] = Family(m.group(2), m.group(3))
        elif m:
            require(family and family.name == m.group(2) and not family.type, line, "TYPE without HELP")
            require(m.group(3) in SUFFIXES, line, "unknown type")
            family.type = m.group(3)
        else:
            require(not line.startswith("#"), line, "a comment")
            sample(line, family)
    for f in families.values():
        check_names(f)
    return families

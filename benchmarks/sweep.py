"""How the cost grows, and whether `"auto"` chooses well: for `speed.py`."""

import itertools

from contestants import cases

# Base: what is compared, and the values of each setting, one varied at a time.
# Images have fewer tasks, so that 32 inner steps take seconds.
_BASES = {
    "sinusoids": {
        "case": cases.CASES["sinusoids-1-second"],
        "ours": "keras_meta steps_per_execution=50",
        "peer": "torch_vmap compiled=true",
        "xla": ("false", "true"),
        "values": {
            "inner_steps": (1, 2, 4, 8, 16, 32),
            "tasks": (1, 4, 25, 128),
            "width": (10, 40, 160, 640),
        },
    },
    "omniglot": {
        "case": {**cases.CASES["omniglot-1-second"], "tasks": 4},
        "ours": "keras_meta",
        "peer": "torch_loop",
        # XLA takes minutes to compile convolutions, which are then many times
        # as slow: see `maml.py`.
        "xla": ("false",),
        "values": {
            "inner_steps": (1, 2, 4, 8, 16, 32),
            "tasks": (1, 4, 32, 128),
            "ways": (2, 5, 20),
            "width": (8, 32, 64, 128),
        },
    },
}
# How far from the best choice "auto" may be.
TOLERANCE = 1.1


def _choices(base):
    return [
        f"{base['ours']} task_mapping={mapping} jit_compile={xla}"
        for xla, mapping in itertools.product(
            base["xla"], ("vectorized", "sequential")
        )
    ]


def _make_cases():
    found = {}
    for name, base in _BASES.items():
        # The base belongs to each setting, and is measured once.
        found[name] = _make_case(base, name, list(base["values"]), True)
        for setting, values in base["values"].items():
            for value in values:
                if value != base["case"][setting]:
                    case = _make_case(
                        base, name, [setting], value in (values[0], values[-1])
                    )
                    found[f"{name}-{setting}-{value}"] = {
                        **case,
                        setting: value,
                        # That they agree, the base tells.
                        "compared": False,
                    }
    return found


def _make_case(base, name, varied, tries_choices):
    compared = [base["ours"], base["peer"]]
    if tries_choices:
        compared += _choices(base)
    return {
        **base["case"],
        "base": name,
        "varied": varied,
        "alone": (),
        "contestants": compared,
    }


CASES = _make_cases()


def summarize(parts, output):
    """Returns the tables of all points so far, and draws them."""
    points = [_point(part) for part in parts]
    draw(points, output)
    return f"{_cost_table(points)}\n{_choice_table(points)}"


def _point(part):
    settings = part["settings"]
    base = _BASES[settings["base"]]
    milliseconds = {
        row["contestant"]: row.get("milliseconds") for row in part["rows"]
    }
    return {
        "base": settings["base"],
        "values": {name: settings[name] for name in settings["varied"]},
        "ours": milliseconds.get(base["ours"]),
        "peer": milliseconds.get(base["peer"]),
        "choices": {
            name: milliseconds[name]
            for name in _choices(base)
            if name in milliseconds
        },
    }


def _cost_table(points):
    lines = [
        "## How the cost grows\n",
        "| case | varied | keras_meta, ms a step | peer, ms a step "
        "| times as fast |",
        "|---|---|---|---|---|",
    ]
    for point in points:
        ours, peer = point["ours"], point["peer"]
        ratio = f"{peer / ours:.2f}" if ours and peer else ""
        lines.append(
            f"| {point['base']} | {_varied(point)} "
            f"| {_shown(ours)} | {_shown(peer)} | {ratio} |"
        )
    return "\n".join(lines) + "\n"


def _choice_table(points):
    lines = [
        '## What "auto" chooses\n',
        "| case | varied | auto, ms | vectorized | sequential "
        "| vectorized, XLA | sequential, XLA | auto / best |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for point in points:
        if not point["choices"]:
            continue
        ours, choices = point["ours"], point["choices"]
        verdict = ""
        times = [time for time in choices.values() if time]
        if ours and times:
            ratio = ours / min(times)
            verdict = f"{ratio:.2f}"
            if ratio > TOLERANCE:
                verdict += " **too slow**"
        # Who names contestants leaves some of the choices out.
        cells = [
            _shown(choices[name]) if name in choices else "not tried"
            for name in _choices(_BASES[point["base"]])
        ]
        cells = " | ".join(cells + ["not tried"] * (4 - len(cells)))
        lines.append(
            f"| {point['base']} | {_varied(point)} "
            f"| {_shown(ours)} | {cells} | {verdict} |"
        )
    return "\n".join(lines) + "\n"


def _varied(point):
    if len(point["values"]) > 1:
        return "nothing"
    ((name, value),) = point["values"].items()
    return f"{name.replace('_', ' ')}: {value}"


def _shown(milliseconds):
    return "failed" if milliseconds is None else f"{milliseconds:.4g}"


def draw(points, output):
    """Draws a picture for each base: the cost against each setting."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    output.mkdir(parents=True, exist_ok=True)
    for name in {point["base"]: None for point in points}:
        settings = list(_BASES[name]["values"])
        figure, axes = pyplot.subplots(
            1, len(settings), figsize=(4 * len(settings), 3.5), sharey=True
        )
        for axis, setting in zip(axes, settings):
            chosen = sorted(
                (
                    point
                    for point in points
                    if point["base"] == name and setting in point["values"]
                ),
                key=lambda point: point["values"][setting],
            )
            for key, label in (
                ("ours", "keras_meta"),
                ("peer", _BASES[name]["peer"]),
            ):
                measured = [point for point in chosen if point[key]]
                axis.plot(
                    [point["values"][setting] for point in measured],
                    [point[key] for point in measured],
                    marker="o",
                    label=label,
                )
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.set_xlabel(setting.replace("_", " "))
        axes[0].set_ylabel("milliseconds an outer step")
        axes[0].legend()
        figure.tight_layout()
        figure.savefig(output / f"speed_{name}.png", dpi=120)
        pyplot.close(figure)

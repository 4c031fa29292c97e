"""The cases: settings, data and initial weights, the same for everyone.

Only NumPy is imported here, since a contestant has TensorFlow or PyTorch.
"""

import numpy as np

# Meta-batches in memory, which take turns.
BATCHES = 4
SIDE = 28

_OMNIGLOT = {
    "algorithm": "maml",
    "network": "conv4",
    "width": 64,
    "ways": 5,
    "shots": 1,
    "queries": 15,
    "tasks": 32,
    "inner_steps": 1,
    "inner_learning_rate": 0.1,
    "first_order": False,
    "contestants": (
        "keras_meta",
        "keras_meta intra_op_threads=1",
        "plain_tensorflow",
        "by_hand",
        "by_hand intra_op_threads=1",
        "torch_loop",
        "torch_loop compiled=true",
        "higher",
    ),
}
_SINUSOIDS = {
    "algorithm": "maml",
    "network": "mlp",
    "width": 40,
    "ways": 1,
    "shots": 10,
    "queries": 10,
    "tasks": 25,
    "inner_steps": 1,
    # With more, five inner steps of first order diverge after some thousands
    # of outer steps on these few tasks, whoever takes them.
    "inner_learning_rate": 0.001,
    "first_order": False,
    "contestants": (
        "keras_meta",
        "keras_meta steps_per_execution=50",
        "keras_meta steps_per_execution=50 intra_op_threads=1",
        "plain_tensorflow",
        "by_hand",
        "by_hand steps_per_execution=50",
        "by_hand steps_per_execution=50 jit_compile=true",
        "by_hand steps_per_execution=50 jit_compile=true intra_op_threads=1",
        "torch_loop",
        "torch_loop compiled=true",
        "torch_vmap",
        "torch_vmap compiled=true",
        "torch_vmap compiled=true intra_op_threads=1",
        "higher",
    ),
}


def _maml_cases(name, base):
    return {
        f"{name}-{steps}-{order}": {
            **base,
            "inner_steps": steps,
            "first_order": order == "first",
        }
        for order in ("second", "first")
        for steps in (1, 5)
    }


CASES = {
    **_maml_cases("omniglot", _OMNIGLOT),
    **_maml_cases("sinusoids", _SINUSOIDS),
    "prototypical": {
        **_OMNIGLOT,
        "algorithm": "prototypical",
        "ways": 60,
        "shots": 5,
        "queries": 5,
        "tasks": 1,
        "contestants": (
            "keras_meta",
            "plain_tensorflow",
            "by_hand",
            "torch",
            "torch compiled=true",
        ),
    },
    "reptile": {
        **_OMNIGLOT,
        "algorithm": "reptile",
        "shots": 15,
        # Reptile trains on the support set alone; `fit()` measures these.
        "queries": 1,
        "tasks": 5,
        "inner_steps": 5,
        "inner_learning_rate": 0.001,
        "inner_batch": 10,
        # Minibatches are drawn by each contestant for itself, so that whole
        # support sets are compared.
        "check": {"inner_batch": None},
        "contestants": (
            "keras_meta",
            "keras_meta intra_op_threads=1",
            "plain_tensorflow",
            "by_hand",
            "by_hand intra_op_threads=1",
            "torch",
            "torch fused=true",
            "torch fused=true compiled=true",
        ),
    },
    **{
        f"answer-{name}": {
            **base,
            "algorithm": "answer",
            "queries": 1,
            "tasks": 1,
            "inner_steps": 5,
            "contestants": (
                "keras_meta",
                "by_hand",
                "torch_loop",
                "torch_loop compiled=true",
            ),
        }
        for name, base in (("omniglot", _OMNIGLOT), ("sinusoids", _SINUSOIDS))
    },
}
# Six to eleven gigabytes each. Nothing else of the case runs beside them.
for _name in ("omniglot-1-second", "omniglot-1-first"):
    CASES[_name] = {**CASES[_name], "alone": ("torch_vmap",)}


def is_image(case):
    return case["network"] == "conv4"


def outputs(case):
    """Returns the size of the last layer, `None` without one."""
    if case["algorithm"] == "prototypical":
        return None
    return case["ways"] if is_image(case) else 1


def data(case, batches=BATCHES):
    """Returns meta-batches, a dictionary of arrays `[batches, tasks, ...]`.

    Images are noise around a picture of their class, since noise takes as
    long as glyphs do.
    """
    generator = np.random.default_rng(0)
    axes = (batches, case["tasks"])
    found = {}
    if is_image(case):
        ways, shape = case["ways"], (SIDE, SIDE, 1)
        classes = generator.random((*axes, ways, 1, *shape), "float32")
        for part, size in (
            ("support", case["shots"]),
            ("query", case["queries"]),
        ):
            noise = generator.random((*axes, ways, size, *shape), "float32")
            images = 0.5 * (classes + noise)
            images = images.astype(case.get("dtype", "float32"))
            found[f"{part}_x"] = images.reshape(*axes, ways * size, *shape)
            found[f"{part}_y"] = np.broadcast_to(
                np.repeat(np.arange(ways, dtype="int32"), size),
                (*axes, ways * size),
            ).copy()
        if case["algorithm"] == "answer":
            found["query_x"] = found["query_x"][:, :, :1].copy()
            found["query_y"] = found["query_y"][:, :, :1].copy()
        return found
    amplitudes = generator.uniform(0.1, 5.0, (*axes, 1, 1))
    phases = generator.uniform(0.0, np.pi, (*axes, 1, 1))
    for part, size in (("support", case["shots"]), ("query", case["queries"])):
        x = generator.uniform(-5.0, 5.0, (*axes, size, 1))
        y = amplitudes * np.sin(x - phases)
        found[f"{part}_x"] = x.astype(case.get("dtype", "float32"))
        found[f"{part}_y"] = y.astype(case.get("dtype", "float32"))
    return found


def to_compare(case):
    """Returns a case as it is compared: few tasks in double precision.

    In single precision two programs cannot be told from each other's mistakes:
    among millions of units there is always one so near to zero that rounding
    turns its ReLU, which moves the outer gradient by up to some percent.
    """
    return {
        **case,
        "tasks": min(case["tasks"], 2),
        "dtype": "float64",
        **case.get("check", {}),
    }


def weights(case):
    """Returns the initial weights, as Keras orders and lays them out."""
    generator = np.random.default_rng(1)
    found = []

    def add(scale, shape, middle=0.0):
        values = middle + scale * generator.normal(size=shape)
        found.append(values.astype(case.get("dtype", "float32")))

    def dense(inputs, units):
        add((2 / inputs) ** 0.5, (inputs, units))
        add(0.1, (units,))

    width = case["width"]
    if not is_image(case):
        for inputs, units in ((1, width), (width, width), (width, 1)):
            dense(inputs, units)
        return found
    channels = 1
    for _ in range(4):
        add((2 / (9 * channels)) ** 0.5, (3, 3, channels, width))
        add(0.1, (width,), middle=1.0)
        add(0.1, (width,))
        channels = width
    if outputs(case):
        dense(width, outputs(case))
    return found


def multiply_adds(case):
    """Counts the multiplications and additions that a task cannot do without.

    Of convolutions and dense layers alone, for one task of an outer step, or
    for one answer. A layer of f multiply-adds takes f forward and f backward
    to its weights, and another f backward to its inputs, which the first
    layer does not need. The second order goes backward through all of these:
    each product has two factors, and takes f for each that depends on the
    weights, which is 6 f, or 2 f in the first layer.

    Returns:
        A number of floating-point operations: two for a multiply-add.
    """
    width = case["width"]
    layers = []
    if is_image(case):
        side, channels = SIDE, 1
        for _ in range(4):
            layers.append(side * side * 9 * channels * width)
            side, channels = side // 2, width
        if outputs(case):
            layers.append(width * outputs(case))
    else:
        layers = [width, width * width, width]
    forward, first_layer = sum(layers), layers[0]
    gradient = 3 * forward - first_layer
    second_order = 6 * forward - 4 * first_layer
    support = case["ways"] * case["shots"]
    query = case["ways"] * case["queries"]
    if case["algorithm"] == "prototypical":
        total = (support + query) * gradient
    elif case["algorithm"] == "reptile":
        batch = min(case["inner_batch"] or support, support)
        total = case["inner_steps"] * batch * gradient
    elif case["algorithm"] == "answer":
        total = case["inner_steps"] * support * gradient + forward
        # The statistics of the support set after the last step.
        total += support * forward if is_image(case) else 0
    else:
        step = gradient + (0 if case["first_order"] else second_order)
        total = case["inner_steps"] * support * step + query * gradient
    return 2 * total

"""The contestants of `benchmarks/speed.py`, one file for each kind.

A file has a function `make(case, folder, **settings)` that returns a
contestant, an object with

- `check()`, which takes one outer step and returns the loss and the list of
  gradients (or of answers), in the order and layout of the Keras weights;
- `run(steps, blocks)`, which takes `blocks` times `steps` outer steps and
  returns the seconds of each block;
- `granularity`, of which `steps` must be a multiple.

TensorFlow and PyTorch need not be in one environment, so that no file here
imports another's.
"""

# Kind, the first word of a contestant's name: its file and what it is given.
KINDS = {
    "keras_meta": ("keras_models", {}),
    "plain_tensorflow": ("plain_tensorflow", {}),
    "by_hand": ("by_hand", {}),
    "matrix_product": ("matrix_product", {}),
    "torch": ("torch_plain", {}),
    "torch_loop": ("torch_func", {}),
    "torch_vmap": ("torch_func", {"vectorized": True}),
    "higher": ("torch_higher", {}),
}
PEERS = ("torch", "torch_loop", "torch_vmap", "higher")

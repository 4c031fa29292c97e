"""Runs files of LiteRT with the interpreter that TensorFlow brings."""

import warnings

import tensorflow as tf


def interpreter(path):
    with warnings.catch_warnings():
        # It says that it will move to a package of its own.
        warnings.simplefilter("ignore")
        return tf.lite.Interpreter(str(path), num_threads=1)


def run(path, signature, **inputs):
    """Returns the outputs of a signature by name."""
    return interpreter(path).get_signature_runner(signature)(**inputs)


def answer(path, signature, **inputs):
    """Returns the only output of a signature."""
    (result,) = run(path, signature, **inputs).values()
    return result

import numpy as np
import tensorflow as tf

from keras_meta import conjugate_gradients


def system(size=6, tasks=4):
    generator = np.random.default_rng(0)
    roots = generator.normal(size=(tasks, size, size))
    matrices = roots @ roots.swapaxes(1, 2) + np.eye(size)
    return matrices, generator.normal(size=(tasks, size))


def solve(matrix, right, steps):
    """Solves with the vector in two parts, one of them a matrix."""

    def split(vector):
        return [vector[:2], tf.reshape(vector[2:], [2, 2])]

    def join(parts):
        return tf.concat([parts[0], tf.reshape(parts[1], [-1])], axis=0)

    def product(parts):
        return split(tf.linalg.matvec(matrix, join(parts)))

    return join(conjugate_gradients.solve(product, split(right), steps))


def test_as_many_steps_as_unknowns_solve_the_system():
    matrices, rights = system()
    expected = np.linalg.solve(matrices, rights[..., None])[..., 0]
    for matrix, right, solution in zip(matrices, rights, expected):
        for steps in (6, 20):
            np.testing.assert_allclose(
                solve(matrix, right, steps), solution, rtol=1e-6
            )


def test_each_step_comes_nearer_in_the_norm_of_the_system():
    matrices, rights = system(tasks=1)
    solution = np.linalg.solve(matrices[0], rights[0])
    errors = []
    for steps in range(1, 6):
        error = np.array(solve(matrices[0], rights[0], steps)) - solution
        errors.append(error @ matrices[0] @ error)
    assert np.all(np.diff(errors) < 0)


def test_side_by_side_and_compiled_it_is_the_same():
    matrices, rights = system()

    @tf.function(jit_compile=True)
    def side_by_side(matrices, rights):
        return tf.vectorized_map(
            lambda task: solve(*task, steps=4), (matrices, rights)
        )

    together = side_by_side(tf.constant(matrices), tf.constant(rights))
    for matrix, right, solution in zip(matrices, rights, together):
        np.testing.assert_allclose(solve(matrix, right, 4), solution, rtol=1e-8)


def test_nothing_to_solve_gives_zeros():
    matrices, _ = system(tasks=1)
    np.testing.assert_array_equal(solve(matrices[0], np.zeros(6), 3), 0.0)

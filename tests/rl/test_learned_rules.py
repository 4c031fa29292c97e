"""Update rules that learn, in the inner loop of a policy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_meta import update_rules
from keras_meta.rl import outer_problem
from keras_meta.rl.fast_weights_policy import forward
from tests.rl.test_maml_agent import TASKS
from tests.rl.test_maml_agent import adapted
from tests.rl.test_maml_agent import collect
from tests.rl.test_maml_agent import learn
from tests.rl.test_maml_agent import make_agent
from tests.rl.test_maml_agent import navigation

RULES = {
    "meta_sgd": lambda: update_rules.MetaSGD(0.5),
    "coordinatewise_lstm": lambda: update_rules.CoordinatewiseLSTM((3, 2)),
    "lstm_meta_learner": lambda: update_rules.LSTMMetaLearner(0.1, units=3),
}


@pytest.fixture(params=RULES)
def agent(request):
    # Two steps, since before the first one nothing is remembered.
    agent = make_agent(
        navigation(), update_rule=RULES[request.param](), inner_steps=2
    )
    # A new policy hardly listens to anything, and has next to no gradients.
    for variable in agent.network.model.trainable_variables:
        variable.assign(variable + tf.random.normal(variable.shape, stddev=0.5))
    return agent


def test_an_outer_step_trains_every_weight_of_the_rule(agent):
    rule, policy = agent.update_rule, agent.network.model
    before = rule.get_weights(), policy.get_weights()
    learn(agent, navigation())
    for after, kept in zip((rule.get_weights(), policy.get_weights()), before):
        for one, other in zip(after, kept):
            assert np.all(np.isfinite(one)) and np.any(one != other)


def test_the_outer_step_knows_the_policies_that_collected(agent):
    experience = collect(agent, navigation())
    stages = [*experience.adaptation, experience.query]
    *adaptation, query = [agent._batch(stage, TASKS) for stage in stages]
    problem = tf.function(
        lambda: outer_problem.OuterProblem(agent, adaptation, query)._tasks,
        autograph=False,
    )()
    state = agent.start(TASKS)
    moved = [state]
    for step, stage in enumerate(experience.adaptation):
        moved.append(adapted(agent, stage, step, moved[-1]))
    for number, (weights, _) in enumerate(moved):
        for task in range(TASKS):
            seen = stages[number].observation[4 * task : 4 * (task + 1)]
            outputs = forward(
                agent.network,
                [weight[task] for weight in weights],
                tf.reshape(seen, [-1, 2]),
            )
            for one, other in zip(problem["before"][number], outputs):
                np.testing.assert_allclose(one[task], other, atol=1e-5)
    # And the steps were no trifles.
    assert not np.allclose(moved[2][0][-1], moved[0][0][-1], atol=1e-4)

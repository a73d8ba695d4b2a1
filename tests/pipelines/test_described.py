"""What kfp reads of a pipeline's parameters, for the UI's form."""

import inspect

from pipelines.described import other_parameters_as_in
from pipelines.mtl_ranking import mtl_ranking


@other_parameters_as_in(mtl_ranking)
def mine(loss, margin, mixtures, seed):
    """Train.

    Args:
        mixtures: Data - what is learnt, such as seed:
            [["a", "b"]].
        margin: Settings - another one.

    """


def test_a_docstring_gets_the_parameters_that_it_leaves_out():
    assert inspect.getdoc(mine) == inspect.cleandoc(
        """
        Train.

        Args:
            mixtures: Data - what is learnt, such as seed:
                [["a", "b"]].
            margin: Settings - another one.
            loss: Settings - name of a config in loop/loss, such as example_mean, task_mean or uncertainty. Empty - the
                experiment's.
            seed: Settings - seed of all random choices.
        """
    )
